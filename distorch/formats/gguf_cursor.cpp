#include "distorch/formats/gguf_cursor.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/error.h"

namespace distorch::formats {

namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 16;
/// A text of the header; the longest that are known are templates for chats.
constexpr std::uint64_t kMostTextBytes = std::uint64_t{64} << 20;
/// Arrays of arrays: deeper ones are nobody's.
constexpr int kMostDepth = 4;

GgufType read_type(GgufCursor& cursor, const std::string& what) {
  const auto at = cursor.position();
  const auto number = cursor.number<std::uint32_t>(what);
  if (number > static_cast<std::uint32_t>(GgufType::F64))
    cursor.fail(fmt::format("{} has the type {}, which is not known", what, number), at);
  return static_cast<GgufType>(number);
}

GgufArray read_array(GgufCursor& cursor, const std::string& what, int depth) {
  if (depth > kMostDepth)
    cursor.fail(fmt::format("{} holds arrays in arrays, {} deep", what, depth), cursor.position());
  GgufArray array{.element = read_type(cursor, what)};
  const auto at = cursor.position();
  array.count = cursor.number<std::uint64_t>(what);
  array.offset_bytes = cursor.position();
  // A string takes at least its length, an array its type and its count.
  const auto least = array.element == GgufType::String ? sizeof(std::uint64_t)
                     : array.element == GgufType::Array
                         ? sizeof(std::uint32_t) + sizeof(std::uint64_t)
                         : size_of(array.element);
  if (array.count > cursor.remaining() / least)
    cursor.fail(fmt::format("{} says it has {} entries, the file has {} bytes left", what,
                            array.count, cursor.remaining()),
                at);
  if (array.element == GgufType::String) {
    for (std::uint64_t i = 0; i < array.count; ++i)
      cursor.skip(cursor.number<std::uint64_t>(what), what);
  } else if (array.element == GgufType::Array) {
    for (std::uint64_t i = 0; i < array.count; ++i) read_array(cursor, what, depth + 1);
  } else {
    cursor.skip(array.count * size_of(array.element), what);
  }
  array.size_bytes = cursor.position() - array.offset_bytes;
  return array;
}

}  // namespace

std::size_t size_of(GgufType type) {
  switch (type) {
    case GgufType::U8:
    case GgufType::I8:
    case GgufType::Bool: return 1;
    case GgufType::U16:
    case GgufType::I16: return 2;
    case GgufType::U32:
    case GgufType::I32:
    case GgufType::F32: return 4;
    case GgufType::U64:
    case GgufType::I64:
    case GgufType::F64: return 8;
    default: return 0;
  }
}

void GgufCursor::fail(const std::string& sentence, std::size_t at) const {
  throw Error(ErrorKind::Format, where_, fmt::format("{} (byte {})", sentence, at));
}

void GgufCursor::need(std::uint64_t bytes, const std::string& what) const {
  if (bytes > remaining())
    fail(fmt::format("{} takes {} bytes, the file has {} left", what, bytes, remaining()), at_);
}

void GgufCursor::copy(void* to, std::size_t bytes) {
  if (bytes > kPieceBytes) {
    read_(at_, {static_cast<std::byte*>(to), bytes});
    at_ += bytes;
    return;
  }
  if (at_ < piece_begin_ || at_ + bytes > piece_begin_ + piece_.size()) {
    piece_begin_ = at_;
    piece_.resize(std::min(kPieceBytes, file_size_ - at_));
    read_(piece_begin_, piece_);
  }
  std::memcpy(to, piece_.data() + (at_ - piece_begin_), bytes);
  at_ += bytes;
}

std::string GgufCursor::text(const std::string& what, std::uint64_t limit) {
  const auto at = at_;
  const auto length = number<std::uint64_t>(what);
  if (length > limit)
    fail(fmt::format("{} has {} bytes, at most {} are taken", what, length, limit), at);
  need(length, what);
  std::string result(static_cast<std::size_t>(length), '\0');
  copy(result.data(), result.size());
  return result;
}

void GgufCursor::skip(std::uint64_t bytes, const std::string& what) {
  need(bytes, what);
  at_ += static_cast<std::size_t>(bytes);
}

GgufValue read_value(GgufCursor& cursor, const std::string& what) {
  switch (read_type(cursor, what)) {
    case GgufType::U8: return std::uint64_t{cursor.number<std::uint8_t>(what)};
    case GgufType::I8: return std::int64_t{cursor.number<std::int8_t>(what)};
    case GgufType::U16: return std::uint64_t{cursor.number<std::uint16_t>(what)};
    case GgufType::I16: return std::int64_t{cursor.number<std::int16_t>(what)};
    case GgufType::U32: return std::uint64_t{cursor.number<std::uint32_t>(what)};
    case GgufType::I32: return std::int64_t{cursor.number<std::int32_t>(what)};
    case GgufType::F32: return double{cursor.number<float>(what)};
    case GgufType::Bool: return cursor.number<std::uint8_t>(what) != 0;
    case GgufType::String: return cursor.text(what, kMostTextBytes);
    case GgufType::Array: return read_array(cursor, what, 1);
    case GgufType::U64: return cursor.number<std::uint64_t>(what);
    case GgufType::I64: return cursor.number<std::int64_t>(what);
    case GgufType::F64: return cursor.number<double>(what);
  }
  return false;  // read_type() knows no other
}

}  // namespace distorch::formats
