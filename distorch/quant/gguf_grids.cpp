#include "distorch/quant/gguf_grids.h"

#include <initializer_list>
#include <string_view>
#include <vector>

#include "distorch/quant/gguf_grid_bits.h"

namespace distorch::quant {

namespace {

/// The points of a grid (gguf_grid_bits.h): `width` coordinates, each one of `levels`.
std::vector<std::int8_t> points(std::string_view bits, std::initializer_list<int> levels,
                                int width) {
  const std::vector<int> level(levels);
  const auto base = static_cast<int>(level.size());
  std::vector<std::int8_t> result;
  for (int number = 0; number < static_cast<int>(bits.size()) * 4; ++number) {
    const char letter = bits[static_cast<std::size_t>(number / 4)];
    const int four = letter <= '9' ? letter - '0' : letter - 'a' + 10;
    if ((four >> number % 4 & 1) == 0) continue;
    for (int digits = number, i = 0; i < width; ++i, digits /= base)
      result.push_back(static_cast<std::int8_t>(level[static_cast<std::size_t>(digits % base)]));
  }
  return result;
}

struct Grids {
  std::vector<std::int8_t> iq2_xxs = points(grid_bits::kIq2Xxs, {8, 25, 43}, 8);
  std::vector<std::int8_t> iq2_xs = points(grid_bits::kIq2Xs, {8, 25, 43}, 8);
  std::vector<std::int8_t> iq2_s = points(grid_bits::kIq2S, {8, 25, 43}, 8);
  std::vector<std::int8_t> iq3_xxs = points(grid_bits::kIq3Xxs, {4, 12, 20, 28, 36, 44, 52, 62}, 4);
  std::vector<std::int8_t> iq3_s = points(grid_bits::kIq3S, {1, 3, 5, 7, 9, 11, 13, 15}, 4);
  std::vector<std::int8_t> iq1 = points(grid_bits::kIq1, {-1, 0, 1}, 8);
};

}  // namespace

std::span<const std::int8_t> grid_of(int type) {
  static const auto& grids = *new Grids;
  switch (type) {
    case 16: return grids.iq2_xxs;
    case 17: return grids.iq2_xs;
    case 18: return grids.iq3_xxs;
    case 21: return grids.iq3_s;
    case 22: return grids.iq2_s;
    case 19:
    case 29: return grids.iq1;
    default: return {};
  }
}

}  // namespace distorch::quant
