#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "distorch/media/frames.h"
#include "distorch/media/png.h"

namespace distorch::media {

/// Whether a PNG holds an animation (an acTL chunk before its pixels).
bool is_apng(std::string_view bytes);

/// Every frame of an animated PNG on its canvas, RGB or RGBA as decode_png() gives them; the still
/// picture that other programs show comes first where it is no part of the animation. No EXIF turn
/// here. Source: the PNG specification, third edition (W3C), section 11.3 on acTL, fcTL and fdAT;
/// blending is linear in every channel, alpha too, as in Pillow.
void decode_apng(std::string_view bytes, const std::string& where, const TakeFrame& take);

struct ApngOptions {
  int milliseconds = 100;   // of a frame
  int compression = 4;      // zlib 0..9
  std::vector<Text> texts;  // behind the pixels, in "comf" chunks, where ComfyUI looks for them
};

/// Frames of one size as an animation that goes round for ever; a frame like the one before makes
/// that one longer, and one frame alone is a still picture, as in Pillow.
std::string encode_apng(const std::vector<Image>& frames, const ApngOptions& options);

}  // namespace distorch::media
