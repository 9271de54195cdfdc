#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "distorch/convert/blocks.h"

// Blocks of 256 numbers in parts of 16 or 32, each with a scale (and an offset) of few bits of its
// own. A part's scale is found by trying: for some spacings the nearest codes are taken, and for
// those codes the scale that leaves the least squares.
namespace distorch::convert {
namespace {

constexpr int kSuper = 256;

void put_half(std::uint8_t* to, float number) {
  const auto bits = to_half(number);
  std::memcpy(to, &bits, sizeof bits);
}
float rounded_to_half(float number) { return from_half(to_half(number)); }

/// x ~ scale · code - offset, codes 0 .. most, offset >= 0.
struct Affine {
  float scale = 0, offset = 0;
};

struct Sums {
  float x = 0, code = 0, code_code = 0, code_x = 0;
};

/// The scale and offset that fit these codes best.
Affine best_for(const Sums& s, float count) {
  const float determinant = count * s.code_code - s.code * s.code;
  Affine fit;
  if (determinant > 0) {
    fit.scale = (count * s.code_x - s.x * s.code) / determinant;
    fit.offset = -(s.code_code * s.x - s.code * s.code_x) / determinant;
  }
  if (determinant <= 0 || fit.offset < 0) {
    fit.offset = 0;
    fit.scale = s.code_code > 0 ? s.code_x / s.code_code : 0;
  }
  return fit;
}

int nearest(float value, int most) {
  return std::clamp(static_cast<int>(std::lrint(value)), 0, most);
}

/// The sum of squares that is left with these scale and offset.
float left_over(const float* x, int count, int most, Affine fit) {
  const float inverse = fit.scale > 0 ? 1 / fit.scale : 0;
  float sum = 0;
  for (int i = 0; i < count; ++i) {
    const auto code = static_cast<float>(nearest((x[i] + fit.offset) * inverse, most));
    const float d = fit.scale * code - fit.offset - x[i];
    sum += d * d;
  }
  return sum;
}

Affine affine_of(const float* x, int count, int most) {
  constexpr int trials = 20;
  const auto [low, high] = std::minmax_element(x, x + count);
  const float least = std::min(*low, 0.0f), range = *high - least;
  if (range <= 0) return {0, -least};
  Affine best{range / static_cast<float>(most), -least};
  float error = left_over(x, count, most, best);
  for (int trial = 0; trial <= trials; ++trial) {
    const float steps = static_cast<float>(most) - 1 + 0.1f * static_cast<float>(trial);
    const float inverse = steps / range;
    Sums sums;
    for (int i = 0; i < count; ++i) {
      const auto code = static_cast<float>(nearest((x[i] - least) * inverse, most));
      sums.x += x[i];
      sums.code += code;
      sums.code_code += code * code;
      sums.code_x += code * x[i];
    }
    const auto fit = best_for(sums, static_cast<float>(count));
    if (fit.scale <= 0) continue;
    if (const float left = left_over(x, count, most, fit); left < error) {
      error = left;
      best = fit;
    }
  }
  return best;
}

/// x ~ scale · code, codes -half .. half - 1; the scale may be negative.
float scale_of(const float* x, int count, int half) {
  constexpr int trials = 9;
  float furthest = 0;
  for (int i = 0; i < count; ++i)
    if (std::abs(x[i]) > std::abs(furthest)) furthest = x[i];
  if (furthest == 0) return 0;
  float best = 0, most_explained = 0;
  for (int trial = -trials; trial <= trials; ++trial) {
    const float inverse = -(static_cast<float>(half) + 0.1f * static_cast<float>(trial)) / furthest;
    float code_x = 0, code_code = 0;
    for (int i = 0; i < count; ++i) {
      const auto code = static_cast<float>(
          std::clamp(static_cast<int>(std::lrint(x[i] * inverse)), -half, half - 1));
      code_x += code * x[i];
      code_code += code * code;
    }
    if (code_code <= 0) continue;
    // What is left over is sum(x²) - explained.
    if (const float explained = code_x * code_x / code_code; explained > most_explained) {
      most_explained = explained;
      best = code_x / code_code;
    }
  }
  return best;
}

/// What all parts of a block of scale and offset have: (d · scale) · code - dmin · offset.
template <int Parts>
struct AffineBlock {
  float d = 0, dmin = 0;
  std::array<int, Parts> scales{}, offsets{};
  std::array<std::uint8_t, kSuper> codes{};
};

template <int Parts>
AffineBlock<Parts> affine_block(const float* x, int most, int most_scale) {
  constexpr int count = kSuper / Parts;
  std::array<Affine, Parts> fits;
  float largest_scale = 0, largest_offset = 0;
  for (int part = 0; part < Parts; ++part) {
    fits[part] = affine_of(x + part * count, count, most);
    largest_scale = std::max(largest_scale, fits[part].scale);
    largest_offset = std::max(largest_offset, fits[part].offset);
  }
  AffineBlock<Parts> block;
  const auto steps = static_cast<float>(most_scale);
  block.d = rounded_to_half(largest_scale / steps);
  block.dmin = rounded_to_half(largest_offset / steps);
  for (int part = 0; part < Parts; ++part) {
    const auto* from = x + part * count;
    block.offsets[part] = block.dmin > 0 ? nearest(fits[part].offset / block.dmin, most_scale) : 0;
    const float offset = block.dmin * static_cast<float>(block.offsets[part]);
    // Of the scales beside the one that was found the one that leaves the least.
    const int middle = block.d > 0 ? nearest(fits[part].scale / block.d, most_scale) : 0;
    float error = -1;
    for (int scale = std::max(0, middle - 1); scale <= std::min(most_scale, middle + 1); ++scale) {
      const float left =
          left_over(from, count, most, {block.d * static_cast<float>(scale), offset});
      if (error >= 0 && left >= error) continue;
      error = left;
      block.scales[part] = scale;
    }
    const float step = block.d * static_cast<float>(block.scales[part]);
    for (int i = 0; i < count; ++i)
      block.codes[part * count + i] =
          static_cast<std::uint8_t>(step > 0 ? nearest((from[i] + offset) / step, most) : 0);
  }
  return block;
}

/// Eight scales and eight offsets of six bits in twelve bytes.
void put_sixes(const AffineBlock<8>& block, std::uint8_t* to) {
  for (int i = 0; i < 4; ++i) {
    const int scale = block.scales[i + 4], offset = block.offsets[i + 4];
    to[i] = static_cast<std::uint8_t>(block.scales[i] | scale >> 4 << 6);
    to[i + 4] = static_cast<std::uint8_t>(block.offsets[i] | offset >> 4 << 6);
    to[i + 8] = static_cast<std::uint8_t>((scale & 15) | (offset & 15) << 4);
  }
}

/// The lower four bits of 64 numbers in 32 bytes, for all 256.
void put_fours(const std::array<std::uint8_t, kSuper>& codes, std::uint8_t* to) {
  for (int group = 0; group < 4; ++group)
    for (int i = 0; i < 32; ++i)
      to[32 * group + i] = static_cast<std::uint8_t>((codes[64 * group + i] & 15) |
                                                     (codes[64 * group + 32 + i] & 15) << 4);
}

/// The lower two bits of 128 numbers in 32 bytes, for all 256.
void put_twos(const std::array<std::uint8_t, kSuper>& codes, std::uint8_t* to) {
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 32; ++i) {
      int byte = 0;
      for (int k = 0; k < 4; ++k) byte |= (codes[128 * half + 32 * k + i] & 3) << 2 * k;
      to[32 * half + i] = static_cast<std::uint8_t>(byte);
    }
}

/// What all parts of a block without offsets have: (d · scale) · code.
struct ScaledBlock {
  float d = 0;
  std::array<int, 16> scales{};
  std::array<std::uint8_t, kSuper> codes{};  // code + half
};

/// Scales are -most_scale .. most_scale - 1.
ScaledBlock scaled_block(const float* x, int half, int most_scale) {
  constexpr int count = 16;
  std::array<float, 16> found{};
  float furthest = 0;
  for (int part = 0; part < 16; ++part) {
    found[part] = scale_of(x + part * count, count, half);
    if (std::abs(found[part]) > std::abs(furthest)) furthest = found[part];
  }
  ScaledBlock block;
  block.d = rounded_to_half(furthest / static_cast<float>(-most_scale));
  for (int part = 0; part < 16; ++part) {
    if (block.d != 0)
      block.scales[part] = std::clamp(static_cast<int>(std::lrint(found[part] / block.d)),
                                      -most_scale, most_scale - 1);
    const float step = block.d * static_cast<float>(block.scales[part]);
    for (int i = 0; i < count; ++i) {
      const auto code = step != 0 ? static_cast<int>(std::lrint(x[part * count + i] / step)) : 0;
      block.codes[part * count + i] =
          static_cast<std::uint8_t>(std::clamp(code, -half, half - 1) + half);
    }
  }
  return block;
}

}  // namespace

void pack_q4_k(const float* from, std::uint8_t* to) {
  const auto block = affine_block<8>(from, 15, 63);
  put_half(to, block.d);
  put_half(to + 2, block.dmin);
  put_sixes(block, to + 4);
  put_fours(block.codes, to + 16);
}

void pack_q5_k(const float* from, std::uint8_t* to) {
  const auto block = affine_block<8>(from, 31, 63);
  put_half(to, block.d);
  put_half(to + 2, block.dmin);
  put_sixes(block, to + 4);
  std::memset(to + 16, 0, 32);
  for (int i = 0; i < kSuper; ++i)
    to[16 + i % 32] = static_cast<std::uint8_t>(to[16 + i % 32] | block.codes[i] >> 4 << i / 32);
  put_fours(block.codes, to + 48);
}

void pack_q2_k(const float* from, std::uint8_t* to) {
  const auto block = affine_block<16>(from, 3, 15);
  for (int part = 0; part < 16; ++part)
    to[part] = static_cast<std::uint8_t>(block.scales[part] | block.offsets[part] << 4);
  put_twos(block.codes, to + 16);
  put_half(to + 80, block.d);
  put_half(to + 82, block.dmin);
}

void pack_q3_k(const float* from, std::uint8_t* to) {
  const auto block = scaled_block(from, 4, 32);
  std::memset(to, 0, 32);
  for (int i = 0; i < kSuper; ++i)
    to[i % 32] = static_cast<std::uint8_t>(to[i % 32] | block.codes[i] >> 2 << i / 32);
  put_twos(block.codes, to + 32);
  std::memset(to + 96, 0, 12);
  for (int part = 0; part < 16; ++part) {
    const int scale = block.scales[part] + 32;
    auto& low = to[96 + part % 8];
    low = static_cast<std::uint8_t>(low | (scale & 15) << (part < 8 ? 0 : 4));
    auto& high = to[104 + part % 4];
    high = static_cast<std::uint8_t>(high | scale >> 4 << part / 4 * 2);
  }
  put_half(to + 108, block.d);
}

void pack_q6_k(const float* from, std::uint8_t* to) {
  const auto block = scaled_block(from, 32, 128);
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 32; ++i) {
      const auto* codes = block.codes.data() + 128 * half + i;
      to[64 * half + i] = static_cast<std::uint8_t>((codes[0] & 15) | (codes[64] & 15) << 4);
      to[64 * half + 32 + i] = static_cast<std::uint8_t>((codes[32] & 15) | (codes[96] & 15) << 4);
      int high = 0;
      for (int k = 0; k < 4; ++k) high |= codes[32 * k] >> 4 << 2 * k;
      to[128 + 32 * half + i] = static_cast<std::uint8_t>(high);
    }
  for (int part = 0; part < 16; ++part)
    to[192 + part] = static_cast<std::uint8_t>(block.scales[part]);
  put_half(to + 208, block.d);
}

}  // namespace distorch::convert
