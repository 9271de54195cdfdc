#pragma once
#include <string>
#include <vector>

#include "distorch/media/image.h"
#include "distorch/media/video.h"

namespace distorch::media {

struct GifOptions {
  Rate rate{10, 1};
  int loops = 0;  // times that it goes round; 0: for ever
  /// One palette for all frames; else each has its own.
  bool one_palette = false;
  std::string dither = "none";  // see palette.h
};

/// Frames of one size as an animated GIF. A GIF counts hundredths of a second: frames are as long as
/// keeps the whole in time. Alpha is dropped. Error(Usage) for sizes that a GIF has not (1..65535)
/// and frames of several sizes.
std::string encode_gif(const std::vector<Image>& frames, const GifOptions& options);

}  // namespace distorch::media
