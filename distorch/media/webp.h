#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "distorch/media/frames.h"

namespace distorch::media {

bool is_webp(std::string_view bytes);

/// 8-bit RGB, or RGBA where the file says it has alpha; of an animation the first frame on its
/// canvas. No EXIF turn here.
Image decode_webp(std::string_view bytes, const std::string& where);

/// The same, every frame of an animation.
void decode_webp_frames(std::string_view bytes, const std::string& where, const TakeFrame& take);

/// Lossy, `quality` 0..100. Gray is written as RGB.
std::string encode_webp(const Image& image, float quality = 90);

/// The EXIF block (TIFF structure), if there is one.
std::optional<std::string> webp_exif(std::string_view bytes);

}  // namespace distorch::media
