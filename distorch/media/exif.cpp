#include "distorch/media/exif.h"

#include <cstdint>

namespace distorch::media {

namespace {

constexpr int tag_orientation = 0x0112;
constexpr std::uint32_t type_ascii = 2;
constexpr std::uint32_t type_short = 3;

/// Numbers of a TIFF structure in its byte order; 0 outside of it.
class Tiff {
 public:
  explicit Tiff(std::string_view block) : block_(block), big_(block.starts_with("MM")) {}

  bool valid() const {
    return (block_.starts_with("MM") || block_.starts_with("II")) && number(2, 2) == 42;
  }

  std::uint32_t number(std::size_t at, int size) const {
    if (at > block_.size() || block_.size() - at < static_cast<std::size_t>(size)) return 0;
    std::uint32_t value = 0;
    for (int i = 0; i < size; ++i) {
      auto place = at + static_cast<std::size_t>(big_ ? i : size - 1 - i);
      value = value << 8 | static_cast<unsigned char>(block_[place]);
    }
    return value;
  }

  std::string_view part(std::size_t at, std::size_t size) const {
    return at > block_.size() || size > block_.size() - at ? std::string_view{}
                                                           : block_.substr(at, size);
  }

 private:
  std::string_view block_;
  bool big_;
};

}  // namespace

Exif parse_exif(std::string_view block) {
  Exif result;
  if (block.starts_with(std::string_view("Exif\0\0", 6))) block.remove_prefix(6);
  Tiff tiff(block);
  if (!tiff.valid()) return result;
  std::size_t directory = tiff.number(4, 4);
  auto count = tiff.number(directory, 2);
  for (std::uint32_t i = 0; i < count; ++i) {
    auto entry = directory + 2 + std::size_t{i} * 12;
    if (tiff.part(entry, 12).empty()) break;
    auto tag = static_cast<int>(tiff.number(entry, 2));
    auto type = tiff.number(entry + 2, 2);
    auto length = tiff.number(entry + 4, 4);
    if (tag == tag_orientation && type == type_short) {
      auto value = static_cast<int>(tiff.number(entry + 8, 2));
      if (value >= 1 && value <= 8) result.orientation = value;
    } else if (type == type_ascii) {
      auto text = tiff.part(length <= 4 ? entry + 8 : tiff.number(entry + 8, 4), length);
      if (auto end = text.find('\0'); end != std::string_view::npos) text = text.substr(0, end);
      if (!text.empty()) result.texts[tag] = text;
    }
  }
  return result;
}

std::string exif_block(const std::map<int, std::string>& texts) {
  constexpr std::size_t kEntry = 12, kShort = 4;  // bytes; a text that stands in its entry
  std::string head("MM\0*\0\0\0\x08", 8), values;
  auto append = [](std::string& to, std::uint32_t value, int size) {
    for (int i = size - 1; i >= 0; --i) to += static_cast<char>(value >> (8 * i) & 255);
  };
  append(head, static_cast<std::uint32_t>(texts.size()), 2);
  const auto behind = head.size() + texts.size() * kEntry + 4;
  for (const auto& [tag, text] : texts) {
    auto value = text + '\0';
    append(head, static_cast<std::uint32_t>(tag), 2);
    append(head, type_ascii, 2);
    append(head, static_cast<std::uint32_t>(value.size()), 4);
    if (value.size() <= kShort) {
      value.resize(kShort, '\0');
      head += value;
      continue;
    }
    append(head, static_cast<std::uint32_t>(behind + values.size()), 4);
    values += value;
    if (value.size() % 2 != 0) values += '\0';
  }
  return std::string("Exif\0\0", 6) + head + std::string(4, '\0') + values;
}

}  // namespace distorch::media
