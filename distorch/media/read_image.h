#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "distorch/media/exif.h"
#include "distorch/media/image.h"

namespace distorch::media {

/// A picture file as ComfyUI's LoadImage sees it: RGB, or RGBA where the file has alpha, turned
/// upright by its EXIF orientation. The format is found by content, never by name (PNG, JPEG,
/// WebP). Errors: Error(MissingFile); Error(Format): unknown or broken format, more than
/// pixel_limit pixels.
Image read_image(const std::filesystem::path& path);
Image decode_image(std::string_view bytes, const std::string& where);

/// The EXIF block of any of the formats; empty where there is none.
Exif exif_of(std::string_view bytes);

}  // namespace distorch::media
