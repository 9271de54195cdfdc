#pragma once
#include <array>
#include <cstdint>

// Scales, offsets and codes for blocks of 256 numbers that are cut into parts of 16 or 32. Parts are
// searched side by side, each in a lane of its own, so that results do not depend on how wide the
// processor's vectors are. Highway, in this thread; knows nothing of torch.
namespace distorch::convert {

constexpr int kSuper = 256;  // numbers of a block
constexpr int kLanes = 32;   // parts that are searched at once

/// How much a number counts in the squares that are kept small: base · m + |x|^power, m = the root
/// mean square of its part to that power. Large weights count more, as in ggml's quantisers.
struct Importance {
  float base = 1;
  bool squared = false;  // power 2, else 1
};

/// Blocks of parts x ~ d · scale · code - dmin · offset, codes 0 .. most.
struct AffineRule {
  int most = 15;        // of a code
  int most_scale = 63;  // of a scale and an offset
  Importance importance;
  /// Spacings that are tried: the part's range over `most` + first + step · 0, 1, ... trials - 1.
  float first = -1, step = 0.1f;
  int trials = 21;
  int rounds = 3;  // of looking at the scales beside each one, then at d and dmin for these
  int beside = 2;  // scales that are looked at on either side
};

/// Blocks of parts x ~ d · scale · code, codes -half .. half - 1.
struct ScaledRule {
  int half = 4;
  int most_scale = 32;  // scales are -most_scale .. most_scale - 1
  Importance importance;
  /// Spacings around the one that meets the furthest number with code -half.
  float step = 0.1f;
  int trials = 19;
  int rounds = 2, beside = 2;
};

/// What was found. Of part p = block · (parts of a block) + part; blocks of parts of 16: 2 at once,
/// of 32: 4. Numbers are float32 that float16 holds. Codes of scaled blocks have `half` added.
struct FoundParts {
  std::array<float, 4> d{}, dmin{};
  std::array<std::int16_t, kLanes> scales{}, offsets{};
  /// False where a number is not, or is too large for a float16 scale; the block is then of no use.
  bool finite = true;
  alignas(64) std::uint8_t codes[32][kLanes];  // [number of its part][part]
};

/// `from`: kLanes parts of `part` numbers (16 or 32), one behind the other.
void find_affine(const float* from, int part, const AffineRule& rule, FoundParts& found);
/// Parts of 16.
void find_scaled(const float* from, const ScaledRule& rule, FoundParts& found);

/// float16 of a number, rounded to even, what is beyond becomes the largest one; and back.
std::uint16_t to_half(float number);
float from_half(std::uint16_t bits);

}  // namespace distorch::convert
