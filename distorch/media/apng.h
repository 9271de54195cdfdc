#pragma once
#include <string>
#include <string_view>

#include "distorch/media/frames.h"

namespace distorch::media {

/// Whether a PNG holds an animation (an acTL chunk before its pixels).
bool is_apng(std::string_view bytes);

/// Every frame of an animated PNG on its canvas, RGB or RGBA as decode_png() gives them; the still
/// picture that other programs show comes first where it is no part of the animation. No EXIF turn
/// here. Source: the PNG specification, third edition (W3C), section 11.3 on acTL, fcTL and fdAT;
/// blending is linear in every channel, alpha too, as in Pillow.
void decode_apng(std::string_view bytes, const std::string& where, const TakeFrame& take);

}  // namespace distorch::media
