#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "distorch/media/frames.h"

namespace distorch::media {

bool is_avif(std::string_view bytes);

/// Every frame as 8-bit RGB, or RGBA where the file has alpha, turned upright by the file's own
/// turn and mirror (its EXIF orientation says nothing, as the format wants it).
void decode_avif(std::string_view bytes, const std::string& where, const TakeFrame& take);

/// The EXIF block (TIFF structure), if there is one.
std::optional<std::string> avif_exif(std::string_view bytes);

}  // namespace distorch::media
