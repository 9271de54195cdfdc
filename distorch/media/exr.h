#pragma once
#include <array>
#include <span>
#include <string>
#include <vector>

#include "distorch/media/png.h"

namespace distorch::media {

/// Where red, green, blue and white lie in the CIE diagram: x and y of each.
using Chromaticities = std::array<float, 8>;
inline constexpr Chromaticities kRec709 = {0.64f, 0.33f, 0.30f,   0.60f,
                                           0.15f, 0.06f, 0.3127f, 0.3290f};
inline constexpr Chromaticities kRec2020 = {0.708f, 0.292f, 0.170f,  0.797f,
                                            0.131f, 0.046f, 0.3127f, 0.3290f};

struct ExrOptions {
  Chromaticities chromaticities = kRec709;
  std::vector<Text> texts;  // become attributes of type string
};

/// An OpenEXR file of linear light, 32-bit floats, without compression: values [height, width,
/// channels], channels 1 (Y), 3 (RGB) or 4 (RGBA). Error(Shape) for others. Source: the OpenEXR file
/// layout, version 2, scan lines.
std::string encode_exr(std::span<const float> values, int width, int height, int channels,
                       const ExrOptions& options = {});

}  // namespace distorch::media
