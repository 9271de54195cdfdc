#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "distorch/media/image.h"

namespace distorch::media {

bool is_jpeg(std::string_view bytes);

/// Gray, YCbCr, RGB and CMYK become 8-bit RGB. No EXIF turn here. Error(Format) if the file is
/// broken or cut short.
Image decode_jpeg(std::string_view bytes, const std::string& where);

/// Baseline JPEG; `quality` 1..100. Alpha is dropped.
std::string encode_jpeg(const Image& image, int quality = 90);

/// The EXIF block (TIFF structure, without the "Exif" marker), if there is one.
std::optional<std::string> jpeg_exif(std::string_view bytes);

}  // namespace distorch::media
