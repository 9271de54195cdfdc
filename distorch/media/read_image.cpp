#include "distorch/media/read_image.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/webp.h"

namespace distorch::media {

namespace {

constexpr std::size_t file_limit = std::size_t{1} << 30;  // bytes

struct PictureFormat {
  bool (*recognises)(std::string_view);
  Image (*decode)(std::string_view, const std::string& where);
  std::optional<std::string> (*exif)(std::string_view);
};

constexpr std::array<PictureFormat, 3> formats = {{
    {is_png, decode_png, png_exif},
    {is_jpeg, decode_jpeg, jpeg_exif},
    {is_webp, decode_webp, webp_exif},
}};

/// Formats that people have and we do not read: better named than unknown.
const char* foreign_name(std::string_view bytes) {
  if (bytes.starts_with("GIF8")) return "a GIF";
  if (bytes.starts_with("BM")) return "a BMP";
  if (bytes.starts_with("II*") || bytes.starts_with(std::string_view("MM\0*", 4))) return "a TIFF";
  if (bytes.size() > 12 && (bytes.substr(4, 8) == "ftypavif" || bytes.substr(4, 8) == "ftypheic"))
    return "an AVIF or HEIC";
  return nullptr;
}

}  // namespace

Image decode_image(std::string_view bytes, const std::string& where) {
  for (const auto& format : formats)
    if (format.recognises(bytes))
      return upright(format.decode(bytes, where), exif_of(bytes).orientation);
  if (bytes.empty()) throw Error(ErrorKind::Format, where, "is empty");
  if (const char* name = foreign_name(bytes))
    throw Error(ErrorKind::Format, where,
                fmt::format("is {} picture; PNG, JPEG and WebP are read here", name));
  throw Error(ErrorKind::Format, where, "is no picture of a known format (PNG, JPEG, WebP)");
}

Image read_image(const std::filesystem::path& path) {
  return decode_image(read_file(path, file_limit), path.string());
}

Exif exif_of(std::string_view bytes) {
  for (const auto& format : formats) {
    if (!format.recognises(bytes)) continue;
    auto block = format.exif(bytes);
    return block ? parse_exif(*block) : Exif{};
  }
  return {};
}

}  // namespace distorch::media
