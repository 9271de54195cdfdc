#include <zlib.h>

#include <algorithm>
#include <array>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/png.h"

namespace distorch::media {

namespace {

constexpr std::size_t text_limit = std::size_t{64} << 20;  // bytes, all texts of a file together

struct Chunk {
  std::string_view type;
  std::string_view data;
  bool intact = false;  // checksum
};

std::uint32_t big_endian(std::string_view bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i)
    value = value << 8 | static_cast<unsigned char>(bytes[static_cast<std::size_t>(i)]);
  return value;
}

/// Takes the next chunk off `rest`; nothing where the file ends or a length leads beyond it.
std::optional<Chunk> next_chunk(std::string_view& rest) {
  if (rest.size() < 12) return std::nullopt;
  std::size_t length = big_endian(rest);
  if (length > rest.size() - 12) return std::nullopt;
  Chunk chunk{rest.substr(4, 4), rest.substr(8, length)};
  if (chunk.type != "IDAT") {  // pixel data is large and not ours
    auto sum = ::crc32(0, reinterpret_cast<const Bytef*>(chunk.type.data()),
                       static_cast<uInt>(length + 4));
    chunk.intact = sum == big_endian(rest.substr(8 + length));
  }
  rest.remove_prefix(12 + length);
  return chunk;
}

std::optional<std::string> inflate_text(std::string_view data, std::size_t limit) {
  z_stream stream{};
  if (::inflateInit(&stream) != Z_OK) return std::nullopt;
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  std::string text;
  int result = Z_OK;
  while (result == Z_OK && text.size() <= limit) {
    auto old = text.size();
    text.resize(std::min(limit + 1, old + std::max<std::size_t>(old, 4096)));
    stream.next_out = reinterpret_cast<Bytef*>(text.data() + old);
    stream.avail_out = static_cast<uInt>(text.size() - old);
    result = ::inflate(&stream, Z_NO_FLUSH);
    text.resize(text.size() - stream.avail_out);
    if (result == Z_BUF_ERROR || (result == Z_OK && stream.avail_in == 0 && stream.avail_out != 0))
      break;  // cut short
  }
  ::inflateEnd(&stream);
  if (result != Z_STREAM_END || text.size() > limit) return std::nullopt;
  return text;
}

/// Bytes of the UTF-8 character that starts here, 0 if none does.
std::size_t utf8_length(std::string_view text) {
  auto first = static_cast<unsigned char>(text[0]);
  std::size_t length = first < 0x80                    ? 1
                       : first >= 0xc2 && first < 0xe0 ? 2
                       : first >= 0xe0 && first < 0xf0 ? 3
                       : first >= 0xf0 && first < 0xf5 ? 4
                                                       : 0;
  if (length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return 0;
  return length;
}

/// tEXt and zTXt are Latin-1 by the standard, but many programs put UTF-8 there: what is valid
/// UTF-8 stays.
std::string to_utf8(std::string_view text) {
  bool valid = true;
  for (auto rest = text; !rest.empty() && valid;) {
    auto length = utf8_length(rest);
    valid = length != 0;
    rest.remove_prefix(length);
  }
  if (valid) return std::string(text);
  std::string result;
  for (char c : text) {
    auto code = static_cast<unsigned char>(c);
    if (code < 0x80) {
      result.push_back(c);
    } else {
      result.push_back(static_cast<char>(0xc0 | code >> 6));
      result.push_back(static_cast<char>(0x80 | (code & 0x3f)));
    }
  }
  return result;
}

/// Cuts `data` at its first zero byte and returns what stood before it.
std::optional<std::string_view> take_field(std::string_view& data) {
  auto end = data.find('\0');
  if (end == std::string_view::npos) return std::nullopt;
  auto field = data.substr(0, end);
  data.remove_prefix(end + 1);
  return field;
}

std::optional<Text> text_of(const Chunk& chunk, std::size_t limit) {
  auto rest = chunk.data;
  auto keyword = take_field(rest);
  if (!keyword || keyword->empty() || keyword->size() > 79) return std::nullopt;
  bool compressed = chunk.type == "zTXt";
  if (chunk.type == "iTXt") {
    if (rest.size() < 2) return std::nullopt;
    compressed = rest[0] != 0;
    if (compressed && rest[1] != 0) return std::nullopt;  // unknown method
    rest.remove_prefix(2);
    // language, translated keyword
    if (!take_field(rest) || !take_field(rest)) return std::nullopt;
  } else if (compressed) {
    if (rest.empty() || rest[0] != 0) return std::nullopt;
    rest.remove_prefix(1);
  }
  if (!compressed && rest.size() > limit) return std::nullopt;
  auto value = compressed ? inflate_text(rest, limit) : std::string(rest);
  if (!value) return std::nullopt;
  return Text{to_utf8(*keyword), to_utf8(*value)};
}

}  // namespace

std::vector<Text> png_texts(std::string_view bytes, const std::string& where) {
  if (!is_png(bytes)) throw Error(ErrorKind::Format, where, "is no PNG");
  bytes.remove_prefix(8);
  std::vector<Text> texts;
  std::size_t left = text_limit;
  while (auto chunk = next_chunk(bytes)) {
    if (chunk->type == "IEND") break;
    // "comf" is what ComfyUI's animations have in the place of tEXt, and like it.
    constexpr std::array kinds = {"tEXt", "zTXt", "iTXt", "comf"};
    if (!chunk->intact || std::ranges::find(kinds, chunk->type) == kinds.end()) continue;
    auto text = text_of(*chunk, left);
    if (!text) continue;
    left -= std::min(left, text->value.size());
    texts.push_back(std::move(*text));
  }
  return texts;
}

std::vector<Text> read_png_texts(const std::filesystem::path& path) {
  return png_texts(read_file(path, std::size_t{1} << 30), path.string());
}

std::optional<std::string> png_exif(std::string_view bytes) {
  if (!is_png(bytes)) return std::nullopt;
  bytes.remove_prefix(8);
  while (auto chunk = next_chunk(bytes)) {
    if (chunk->type == "IEND") break;
    if (chunk->intact && chunk->type == "eXIf") return std::string(chunk->data);
  }
  return std::nullopt;
}

}  // namespace distorch::media
