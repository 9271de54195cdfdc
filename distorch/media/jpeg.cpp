#include "distorch/media/jpeg.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>

// Needs the standard headers above.
#include <jerror.h>
#include <jpeglib.h>

#include "distorch/base/error.h"

namespace distorch::media {

namespace {

/// libjpeg reports errors by a function that must not return; it jumps. As with libpng, nothing
/// with a destructor lives in the functions that call it.
struct Failure {
  jpeg_error_mgr manager{};
  jmp_buf back{};
  char message[JMSG_LENGTH_MAX] = "";
};

void on_error(j_common_ptr info) {
  auto* failure = reinterpret_cast<Failure*>(info->err);
  info->err->format_message(info, failure->message);
  std::longjmp(failure->back, 1);
}

/// Warnings about missing data are errors here: half a picture is not a picture.
void on_message(j_common_ptr info, int level) {
  if (level < 0 && (info->err->msg_code == JWRN_JPEG_EOF || info->err->msg_code == JWRN_HIT_MARKER))
    on_error(info);
}

struct Reader {
  jpeg_decompress_struct info{};
  Failure failure;
  Image image;

  Reader() {
    info.err = jpeg_std_error(&failure.manager);
    failure.manager.error_exit = on_error;
    failure.manager.emit_message = on_message;
  }
  ~Reader() { jpeg_destroy_decompress(&info); }
};

bool read_header(Reader& r, std::string_view bytes) {
  if (setjmp(r.failure.back) != 0) return false;
  jpeg_create_decompress(&r.info);
  jpeg_mem_src(&r.info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&r.info, TRUE);
  bool four = r.info.jpeg_color_space == JCS_CMYK || r.info.jpeg_color_space == JCS_YCCK;
  r.info.out_color_space = four ? JCS_CMYK : JCS_RGB;
  return true;
}

bool read_pixels(Reader& r, unsigned char* pixels, std::size_t row_bytes) {
  if (setjmp(r.failure.back) != 0) return false;
  jpeg_start_decompress(&r.info);
  while (r.info.output_scanline < r.info.output_height) {
    unsigned char* row = pixels + r.info.output_scanline * row_bytes;
    jpeg_read_scanlines(&r.info, &row, 1);
  }
  jpeg_finish_decompress(&r.info);
  return true;
}

/// Four inks to RGB. Adobe's programs store inks inverted.
Image from_inks(const std::vector<std::uint8_t>& inks, int width, int height, bool inverted) {
  auto image = blank_image(width, height, 3);
  for (std::size_t i = 0; i < image.pixels.size() / 3; ++i) {
    const auto* from = inks.data() + i * 4;
    int light = inverted ? from[3] : 255 - from[3];
    for (std::size_t c = 0; c < 3; ++c) {
      int colour = inverted ? from[c] : 255 - from[c];
      image.pixels[i * 3 + c] = static_cast<std::uint8_t>((colour * light + 127) / 255);
    }
  }
  return image;
}

struct Writer {
  jpeg_compress_struct info{};
  Failure failure;
  unsigned char* bytes = nullptr;
  unsigned long size = 0;

  Writer() {
    info.err = jpeg_std_error(&failure.manager);
    failure.manager.error_exit = on_error;
  }
  ~Writer() {
    jpeg_destroy_compress(&info);
    std::free(bytes);
  }
};

bool write_all(Writer& w, const Image& image, int quality) {
  if (setjmp(w.failure.back) != 0) return false;
  jpeg_create_compress(&w.info);
  jpeg_mem_dest(&w.info, &w.bytes, &w.size);
  w.info.image_width = static_cast<JDIMENSION>(image.width);
  w.info.image_height = static_cast<JDIMENSION>(image.height);
  w.info.input_components = image.channels;
  w.info.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&w.info);
  jpeg_set_quality(&w.info, quality, TRUE);
  jpeg_start_compress(&w.info, TRUE);
  while (w.info.next_scanline < w.info.image_height) {
    auto* row =
        const_cast<unsigned char*>(image.pixels.data()) + w.info.next_scanline * image.row_bytes();
    jpeg_write_scanlines(&w.info, &row, 1);
  }
  jpeg_finish_compress(&w.info);
  return true;
}

}  // namespace

bool is_jpeg(std::string_view bytes) { return bytes.starts_with("\xff\xd8\xff"); }

Image decode_jpeg(std::string_view bytes, const std::string& where) {
  Reader r;
  auto fail = [&] {
    return Error(ErrorKind::Format, where, std::string("is a broken JPEG: ") + r.failure.message);
  };
  if (!read_header(r, bytes)) throw fail();
  check_size(r.info.image_width, r.info.image_height, where);
  auto width = static_cast<int>(r.info.image_width), height = static_cast<int>(r.info.image_height);
  if (r.info.out_color_space == JCS_RGB) {
    r.image = blank_image(width, height, 3);
    if (!read_pixels(r, r.image.pixels.data(), r.image.row_bytes())) throw fail();
    return std::move(r.image);
  }
  std::vector<std::uint8_t> inks(std::size_t{4} * r.info.image_width * r.info.image_height);
  if (!read_pixels(r, inks.data(), std::size_t{4} * r.info.image_width)) throw fail();
  return from_inks(inks, width, height, r.info.saw_Adobe_marker != 0);
}

std::string encode_jpeg(const Image& image, int quality) {
  auto opaque = image.channels == 4 ? to_rgb(image) : image;
  Writer w;
  if (!write_all(w, opaque, std::clamp(quality, 1, 100)))
    throw Error(ErrorKind::Internal, "JPEG", w.failure.message);
  return {reinterpret_cast<const char*>(w.bytes), w.size};
}

std::optional<std::string> jpeg_exif(std::string_view bytes) {
  constexpr std::string_view mark("Exif\0\0", 6);
  if (!is_jpeg(bytes)) return std::nullopt;
  bytes.remove_prefix(2);
  while (bytes.size() >= 4 && bytes[0] == '\xff') {
    auto kind = static_cast<unsigned char>(bytes[1]);
    if (kind == 0xff) {  // padding
      bytes.remove_prefix(1);
      continue;
    }
    if (kind == 0xda || kind == 0xd9) break;  // pixels begin, or the end
    std::size_t length = static_cast<std::size_t>(static_cast<unsigned char>(bytes[2])) << 8 |
                         static_cast<unsigned char>(bytes[3]);
    if (length < 2 || length + 2 > bytes.size()) break;
    auto body = bytes.substr(4, length - 2);
    if (kind == 0xe1 && body.starts_with(mark)) return std::string(body.substr(mark.size()));
    bytes.remove_prefix(length + 2);
  }
  return std::nullopt;
}

}  // namespace distorch::media
