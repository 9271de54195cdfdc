#include "distorch/media/png.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <cstring>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/png_rows.h"

namespace distorch::media {

namespace {

/// libpng reports errors by a jump, which must not cross C++ objects. So everything with a
/// destructor lives here, outside of the functions that call libpng.
struct Session {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::string message;
  std::string_view input;  // what is left to read
  std::string output;
  Image image;
  std::vector<png_bytep> rows;
  std::vector<png_text> texts;
  bool reading = false;

  ~Session() {
    if (reading)
      png_destroy_read_struct(&png, &info, nullptr);
    else
      png_destroy_write_struct(&png, &info);
  }
};

void on_error(png_structp png, png_const_charp text) {
  static_cast<Session*>(png_get_error_ptr(png))->message = text;
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void give_bytes(png_structp png, png_bytep to, std::size_t count) {
  auto& session = *static_cast<Session*>(png_get_io_ptr(png));
  if (session.input.size() < count) png_error(png, "ends in the middle of the picture");
  std::memcpy(to, session.input.data(), count);
  session.input.remove_prefix(count);
}

void take_bytes(png_structp png, png_bytep from, std::size_t count) {
  static_cast<Session*>(png_get_io_ptr(png))
      ->output.append(reinterpret_cast<const char*>(from), count);
}

void nothing_to_flush(png_structp) {}

void point_rows(Session& s) {
  s.rows.resize(static_cast<std::size_t>(s.image.height));
  for (std::size_t y = 0; y < s.rows.size(); ++y)
    s.rows[y] = s.image.pixels.data() + y * s.image.row_bytes();
}

/// Reads the header and asks for 8-bit RGB or RGBA. False: libpng jumped, s.message says why.
bool read_header(Session& s) {
  if (setjmp(png_jmpbuf(s.png)) != 0) return false;
  png_set_read_fn(s.png, &s, give_bytes);
  png_set_user_limits(s.png, 0x7fffffff, 0x7fffffff);  // check_size() has the final word
  png_set_chunk_malloc_max(s.png, 64 << 20);
  // Texts and profiles are not wanted here; unread they cannot do harm.
  png_set_keep_unknown_chunks(s.png, PNG_HANDLE_CHUNK_NEVER, nullptr, 0);
  const png_byte skipped[] = "tEXt\0zTXt\0iTXt\0iCCP\0eXIf\0sPLT";
  png_set_keep_unknown_chunks(s.png, PNG_HANDLE_CHUNK_NEVER, skipped, 6);
  png_read_info(s.png, s.info);
  auto colour = png_get_color_type(s.png, s.info);
  png_set_strip_16(s.png);
  // transparency of a palette becomes alpha
  if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(s.png);
  if ((colour & PNG_COLOR_MASK_COLOR) == 0) {
    if (png_get_bit_depth(s.png, s.info) < 8) png_set_expand_gray_1_2_4_to_8(s.png);
    png_set_gray_to_rgb(s.png);
  }
  png_set_interlace_handling(s.png);
  return true;
}

bool update_info(Session& s) {
  if (setjmp(png_jmpbuf(s.png)) != 0) return false;
  png_read_update_info(s.png, s.info);
  return true;
}

bool read_pixels(Session& s) {
  if (setjmp(png_jmpbuf(s.png)) != 0) return false;
  png_read_image(s.png, s.rows.data());
  return true;
}

/// `pixels`: of deflate_rows().
bool write_chunks(Session& s, int compression, int colour, int depth, const std::string& pixels) {
  constexpr std::size_t most_in_chunk = 1 << 20;  // readers may want to hold a whole one
  if (setjmp(png_jmpbuf(s.png)) != 0) return false;
  png_set_write_fn(s.png, &s, take_bytes, nothing_to_flush);
  png_set_IHDR(s.png, s.info, static_cast<png_uint_32>(s.image.width),
               static_cast<png_uint_32>(s.image.height), depth, colour, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_set_text_compression_level(s.png, compression);
  if (!s.texts.empty())
    png_set_text(s.png, s.info, s.texts.data(), static_cast<int>(s.texts.size()));
  png_write_info(s.png, s.info);
  const png_byte data[] = "IDAT", end[] = "IEND";
  for (std::size_t at = 0; at < pixels.size(); at += most_in_chunk)
    png_write_chunk(s.png, data, reinterpret_cast<png_const_bytep>(pixels.data() + at),
                    std::min(most_in_chunk, pixels.size() - at));
  png_write_chunk(s.png, end, nullptr, 0);
  return true;
}

void check_keyword(const std::string& keyword) {
  bool printable = std::ranges::all_of(keyword, [](char c) { return c >= 32 && c <= 126; });
  if (keyword.empty() || keyword.size() > 79 || !printable || keyword.front() == ' ' ||
      keyword.back() == ' ' || keyword.find("  ") != std::string::npos)
    throw Error(
        ErrorKind::Usage, "PNG text",
        fmt::format("'{}' cannot be a keyword (1 to 79 printable ASCII characters)", keyword));
}

png_text libpng_text(Text& text) {
  check_keyword(text.keyword);
  if (text.value.find('\0') != std::string::npos)
    throw Error(ErrorKind::Usage, "PNG text", fmt::format("'{}' holds a zero byte", text.keyword));
  bool ascii =
      std::ranges::all_of(text.value, [](char c) { return static_cast<unsigned char>(c) < 128; });
  png_text result{};
  result.compression = ascii ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
  result.key = text.keyword.data();
  result.text = text.value.data();
  if (ascii)
    result.text_length = text.value.size();
  else
    result.itxt_length = text.value.size();
  return result;
}

}  // namespace

bool is_png(std::string_view bytes) { return bytes.starts_with("\x89PNG\r\n\x1a\n"); }

Image decode_png(std::string_view bytes, const std::string& where) {
  Session s;
  s.input = bytes;
  s.reading = true;
  s.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
  s.info = s.png != nullptr ? png_create_info_struct(s.png) : nullptr;
  if (s.info == nullptr) throw Error(ErrorKind::OutOfMemory, where, "no memory for reading a PNG");
  auto fail = [&] { return Error(ErrorKind::Format, where, "is a broken PNG: " + s.message); };
  if (!read_header(s)) throw fail();
  auto width = png_get_image_width(s.png, s.info), height = png_get_image_height(s.png, s.info);
  check_size(width, height, where);
  // Deflate makes at most 1032 out of one byte: a small file cannot hold what a large header says.
  auto stored_bits = std::uint64_t{width} * height * png_get_bit_depth(s.png, s.info) *
                     png_get_channels(s.png, s.info);
  if (stored_bits / 8 / 1040 > bytes.size())
    throw Error(ErrorKind::Format, where,
                fmt::format("says it has {} x {} pixels, which {} bytes cannot hold", width, height,
                            bytes.size()));
  if (!update_info(s)) throw fail();
  s.image = blank_image(static_cast<int>(width), static_cast<int>(height),
                        png_get_channels(s.png, s.info));
  if (png_get_rowbytes(s.png, s.info) != s.image.row_bytes())
    throw Error(ErrorKind::Internal, where, "libpng gives rows of an unexpected size");
  point_rows(s);
  if (!read_pixels(s)) throw fail();
  return std::move(s.image);
}

namespace {

/// Rows of `depth` bits a channel, the higher byte first; `image` gives the sizes and the bytes.
std::string encode(Image image, int depth, const PngOptions& options) {
  Session s;
  s.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &s, on_error, on_warning);
  s.info = s.png != nullptr ? png_create_info_struct(s.png) : nullptr;
  if (s.info == nullptr) throw Error(ErrorKind::OutOfMemory, "PNG", "no memory for writing");
  const auto pixel = static_cast<std::size_t>(image.channels * depth / 8);
  const auto row = image.row_bytes() * static_cast<std::size_t>(depth / 8);
  if (image.width < 1 || image.height < 1 ||
      image.pixels.size() != row * static_cast<std::size_t>(image.height))
    throw Error(ErrorKind::Internal, "PNG",
                fmt::format("{} x {} x {} with {} bytes is no image", image.height, image.width,
                            image.channels, image.pixels.size()));
  auto texts = options.texts;
  for (auto& text : texts) s.texts.push_back(libpng_text(text));
  const int compression = std::clamp(options.compression, 0, 9);
  const auto pixels = deflate_rows(image.pixels, row, pixel, compression);
  s.image = std::move(image);
  int colour = s.image.channels == 1   ? PNG_COLOR_TYPE_GRAY
               : s.image.channels == 3 ? PNG_COLOR_TYPE_RGB
                                       : PNG_COLOR_TYPE_RGB_ALPHA;
  if (!write_chunks(s, compression, colour, depth, pixels))
    throw Error(ErrorKind::Internal, "PNG", s.message);
  return std::move(s.output);
}

}  // namespace

std::string encode_png(const Image& image, const PngOptions& options) {
  return encode(image, 8, options);
}

std::string encode_png16(std::span<const std::uint16_t> values, int width, int height, int channels,
                         const PngOptions& options) {
  Image image{width, height, channels, {}};
  image.pixels.reserve(values.size() * 2);
  for (auto value : values) {
    image.pixels.push_back(static_cast<std::uint8_t>(value >> 8));
    image.pixels.push_back(static_cast<std::uint8_t>(value & 0xFF));
  }
  return encode(std::move(image), 16, options);
}

void write_png(const std::filesystem::path& path, const Image& image, const PngOptions& options) {
  write_file(path, encode_png(image, options));
}

}  // namespace distorch::media
