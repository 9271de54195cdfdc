#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "distorch/media/image.h"

namespace distorch::media {

using PaletteColour = std::array<std::uint8_t, 3>;

/// At most 256 colours that stand for those of RGB pictures: all of them where they are no more,
/// else by median cut over boxes of colours.
std::vector<PaletteColour> palette_of(std::span<const Image> pictures);

/// Ways to spread the error of a colour over its neighbours, by FFmpeg's names.
std::vector<std::string> dither_names();

/// For each pixel the index of the nearest colour; `dither`: one of dither_names(), "none" without.
/// Error(Usage) for another name.
std::vector<std::uint8_t> indices_of(const Image& picture,
                                     const std::vector<PaletteColour>& palette,
                                     const std::string& dither = "none");

}  // namespace distorch::media
