#pragma once
#include <string>
#include <string_view>

#include "distorch/media/frames.h"

namespace distorch::media {

bool is_tiff(std::string_view bytes);

/// Every page, each turned upright by its own orientation: gray and palettes of 1 to 8 bits, gray,
/// RGB and CMYK of 8 or 16 bits (the upper byte counts), YCbCr; alpha where the page has it,
/// premultiplied alpha divided out; all compressions that the system's libtiff knows. Error(Format)
/// for samples of other sizes and for floating point.
void decode_tiff(std::string_view bytes, const std::string& where, const TakeFrame& take);

}  // namespace distorch::media
