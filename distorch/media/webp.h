#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

struct WebpAnimation {
  int milliseconds = 100;  // of a frame
  bool lossless = true;
  float quality = 80;  // 0..100; how hard a lossless file is tried to be made small
  int method = 4;      // 0 fast .. 6 small
  int loops = 0;       // times that it goes round; 0: for ever
  std::string exif;    // the block; "": none
};

/// Frames of one size as an animation, with Pillow's settings; one frame
/// alone becomes a still picture. Gray is written as RGB. Error(Usage) for sizes that WebP has not.
std::string encode_webp_animation(const std::vector<Image>& frames, const WebpAnimation& options);

/// The EXIF block (TIFF structure), if there is one.
std::optional<std::string> webp_exif(std::string_view bytes);

}  // namespace distorch::media
