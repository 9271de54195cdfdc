// Source of the layout: PKWARE's APPNOTE, sections 4.3 and 4.5.3.
#include "distorch/formats/zip_directory.h"

#include <fmt/format.h>

#include <cstring>
#include <string_view>

#include "distorch/base/error.h"

namespace distorch::formats {

namespace {

constexpr std::uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kLocator64 = 0x07064b50,
                        kEntry = 0x02014b50, kLocal = 0x04034b50;
constexpr std::size_t kEndSize = 22, kLongestComment = 65535;
constexpr std::uint64_t kElsewhere32 = 0xFFFFFFFF;  // the value stands in the 64-bit part

class Reader {
 public:
  explicit Reader(const MappedFile& file) : file_(file) {}

  std::map<std::string, ByteRange> run() {
    auto [at, count] = directory();
    std::map<std::string, ByteRange> entries;
    for (std::uint64_t i = 0; i < count; ++i) at = entry(at, entries);
    return entries;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::Format, file_.path().string(), "is a zip archive that " + what);
  }

  std::string bytes(std::uint64_t at, std::uint64_t count) const {
    if (at > file_.size() || count > file_.size() - at) fail("is cut short");
    std::string result(static_cast<std::size_t>(count), '\0');
    file_.read(static_cast<std::size_t>(at), std::as_writable_bytes(std::span(result)));
    return result;
  }
  template <class T>
  static T number(std::string_view text, std::size_t at) {
    T value{};
    if (at + sizeof(T) <= text.size()) std::memcpy(&value, text.data() + at, sizeof(T));
    return value;
  }

  /// Where the directory begins and how many entries it has.
  std::pair<std::uint64_t, std::uint64_t> directory() const {
    auto tail_size = std::min<std::uint64_t>(file_.size(), kEndSize + kLongestComment);
    auto tail_at = file_.size() - tail_size;
    auto tail = bytes(tail_at, tail_size);
    for (auto i = tail.size() < kEndSize ? 0 : tail.size() - kEndSize + 1; i-- > 0;) {
      if (number<std::uint32_t>(tail, i) != kEnd) continue;
      std::uint64_t count = number<std::uint16_t>(tail, i + 10),
                    at = number<std::uint32_t>(tail, i + 16);
      if (count != 0xFFFF && at != kElsewhere32) return {at, count};
      if (tail_at + i < 20) fail("has no directory");
      auto locator = bytes(tail_at + i - 20, 20);
      if (number<std::uint32_t>(locator, 0) != kLocator64) return {at, count};
      auto end = bytes(number<std::uint64_t>(locator, 8), 56);
      if (number<std::uint32_t>(end, 0) != kEnd64) fail("has no directory");
      return {number<std::uint64_t>(end, 48), number<std::uint64_t>(end, 32)};
    }
    fail("has no directory; it may be cut short");
  }

  struct Sizes {
    std::uint64_t plain, stored, local;
  };
  // Values that do not fit into 32 bits follow in an extra field, in this order.
  static void widen(std::string_view extra, Sizes& sizes) {
    for (std::size_t i = 0; i + 4 <= extra.size();) {
      auto id = number<std::uint16_t>(extra, i), size = number<std::uint16_t>(extra, i + 2);
      auto field = extra.substr(i + 4, size);
      i += 4u + size;
      if (id != 1) continue;
      std::size_t at = 0;
      for (auto* value : {&sizes.plain, &sizes.stored, &sizes.local}) {
        if (*value != kElsewhere32) continue;
        *value = number<std::uint64_t>(field, at);
        at += 8;
      }
    }
  }

  std::uint64_t entry(std::uint64_t at, std::map<std::string, ByteRange>& entries) const {
    auto head = bytes(at, 46);
    if (number<std::uint32_t>(head, 0) != kEntry) fail("has a broken directory");
    auto method = number<std::uint16_t>(head, 10);
    Sizes sizes{number<std::uint32_t>(head, 24), number<std::uint32_t>(head, 20),
                number<std::uint32_t>(head, 42)};
    std::uint64_t name_size = number<std::uint16_t>(head, 28),
                  extra_size = number<std::uint16_t>(head, 30),
                  comment_size = number<std::uint16_t>(head, 32);
    auto name = bytes(at + 46, name_size);
    widen(bytes(at + 46 + name_size, extra_size), sizes);
    if (method != 0 || sizes.plain != sizes.stored)
      fail(fmt::format("has its file '{}' compressed; torch.save stores them as they are", name));
    auto local = bytes(sizes.local, 30);
    if (number<std::uint32_t>(local, 0) != kLocal) fail("has a broken entry for '" + name + "'");
    auto start =
        sizes.local + 30 + number<std::uint16_t>(local, 26) + number<std::uint16_t>(local, 28);
    if (start > file_.size() || sizes.plain > file_.size() - start) fail("is cut short");
    ByteRange range{static_cast<std::size_t>(start), static_cast<std::size_t>(sizes.plain)};
    if (!entries.emplace(name, range).second) fail("has two files called '" + name + "'");
    return at + 46 + name_size + extra_size + comment_size;
  }

  const MappedFile& file_;
};

}  // namespace

std::map<std::string, ByteRange> zip_directory(const MappedFile& file) {
  return Reader(file).run();
}

}  // namespace distorch::formats
