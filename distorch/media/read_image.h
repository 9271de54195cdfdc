#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/media/exif.h"
#include "distorch/media/frames.h"

namespace distorch::media {

/// A picture file as ComfyUI's LoadImage sees it: RGB, or RGBA where the file has alpha, turned
/// upright. The format is found by content, never by name (PNG and animated PNG, JPEG, WebP, GIF,
/// BMP, TIFF, AVIF). Of an animation, or of several pages, the first. Errors: Error(MissingFile);
/// Error(Format): unknown or broken format, more than pixel_limit pixels.
Image read_image(const std::filesystem::path& path);
Image decode_image(std::string_view bytes, const std::string& where);

/// Every frame of an animation and every page that has the size of the first one; others are left
/// out, since a batch has one size. Never empty. Errors as above; Error(Format) also where all
/// frames together have more than frames_pixel_limit pixels.
std::vector<Image> read_frames(const std::filesystem::path& path);
std::vector<Image> decode_frames(std::string_view bytes, const std::string& where);

/// The EXIF block of any of the formats; empty where there is none.
Exif exif_of(std::string_view bytes);

}  // namespace distorch::media
