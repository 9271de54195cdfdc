#include "distorch/media/read_image.h"

#include <array>
#include <optional>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/apng.h"
#include "distorch/media/avif.h"
#include "distorch/media/bmp.h"
#include "distorch/media/gif.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/tiff.h"
#include "distorch/media/webp.h"

namespace distorch::media {

namespace {

constexpr std::size_t file_limit = std::size_t{1} << 30;  // bytes

struct PictureFormat {
  bool (*recognises)(std::string_view);
  void (*decode)(std::string_view, const std::string& where, const TakeFrame&);
  // nullptr: it has none, or (TIFF) turns each page by itself
  std::optional<std::string> (*exif)(std::string_view);
  bool turned_by_exif = true;
};

using Decode = Image (*)(std::string_view, const std::string&);

/// Formats of one picture.
template <Decode decode>
void single(std::string_view bytes, const std::string& where, const TakeFrame& take) {
  take(decode(bytes, where));
}

constexpr std::array<PictureFormat, 8> formats = {{
    {is_apng, decode_apng, png_exif},
    {is_png, single<decode_png>, png_exif},
    {is_jpeg, single<decode_jpeg>, jpeg_exif},
    {is_webp, decode_webp_frames, webp_exif},
    {is_gif, decode_gif, nullptr},
    {is_tiff, decode_tiff, nullptr},
    {is_avif, decode_avif, avif_exif, false},
    {is_bmp, single<decode_bmp>, nullptr},
}};

const PictureFormat* format_of(std::string_view bytes) {
  for (const auto& format : formats)
    if (format.recognises(bytes)) return &format;
  return nullptr;
}

void decode(std::string_view bytes, const std::string& where, const TakeFrame& take) {
  const auto* format = format_of(bytes);
  if (bytes.empty()) throw Error(ErrorKind::Format, where, "is empty");
  if (format == nullptr)
    throw Error(ErrorKind::Format, where,
                "is no picture of a known format (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF)");
  int orientation = format->turned_by_exif ? exif_of(bytes).orientation : 1;
  format->decode(bytes, where,
                 [&](Image frame) { return take(upright(std::move(frame), orientation)); });
}

}  // namespace

Image decode_image(std::string_view bytes, const std::string& where) {
  Image first;
  decode(bytes, where, [&](Image frame) {
    first = std::move(frame);
    return false;
  });
  return first;
}

Image read_image(const std::filesystem::path& path) {
  return decode_image(read_file(path, file_limit), path.string());
}

std::vector<Image> decode_frames(std::string_view bytes, const std::string& where) {
  std::vector<Image> frames;
  decode(bytes, where, [&](Image frame) {
    if (frames.empty() || (frame.width == frames[0].width && frame.height == frames[0].height))
      frames.push_back(std::move(frame));
    return true;
  });
  return frames;
}

std::vector<Image> read_frames(const std::filesystem::path& path) {
  return decode_frames(read_file(path, file_limit), path.string());
}

Exif exif_of(std::string_view bytes) {
  const auto* format = format_of(bytes);
  if (format == nullptr || format->exif == nullptr) return {};
  auto block = format->exif(bytes);
  return block ? parse_exif(*block) : Exif{};
}

}  // namespace distorch::media
