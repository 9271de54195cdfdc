#include "distorch/quant/gguf_half_cpu.h"

#include <bit>

// As in gguf_cpu.cpp.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/gguf_half_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::HWY_NAMESPACE {
namespace {

#include "distorch/quant/gguf_blocks.inc"

// The loops below are plain C++ that the compiler puts into vectors.

/// a where the condition holds, else b: without a branch, which would keep a loop out of vectors.
inline std::uint32_t pick(bool condition, std::uint32_t a, std::uint32_t b) {
  const auto mask = std::uint32_t{0} - static_cast<std::uint32_t>(condition);
  return (a & mask) | (b & ~mask);
}

/// Rounded to even; the small ones by adding a half, which has their last place.
inline std::uint16_t half_from(float value) {
  constexpr std::uint32_t infinite = 0x7f800000, smallest_normal = 0x38800000;
  constexpr std::uint32_t exponents_apart = 0x38000000, half_infinite = 0x7c00, half_nan = 0x7e00;
  const auto bits = std::bit_cast<std::uint32_t>(value), size = bits & 0x7fffffff;
  const auto small = std::bit_cast<std::uint32_t>(std::bit_cast<float>(size) + 0.5f) -
                     std::bit_cast<std::uint32_t>(0.5f);
  const auto normal = (size + 0xfff + (size >> 13 & 1) - exponents_apart) >> 13;
  const auto finite = pick(size < smallest_normal, small, normal);
  const auto capped = pick(finite < half_infinite, finite, half_infinite);
  const auto result = pick(size > infinite, half_nan, capped);
  return static_cast<std::uint16_t>(result | (bits >> 16 & 0x8000));
}

inline float in_half(float value) { return half_of(half_from(value)); }

template <class Block>
void decode(const BlockJob& job) {
  constexpr int run = Block::run;
  const auto* HWY_RESTRICT from = job.blocks;
  auto* HWY_RESTRICT to = static_cast<float*>(job.numbers);
  for (std::int64_t block = 0; block < job.count; ++block, from += Block::bytes)
    for (int first = 0; first < Block::block; first += run, to += run) {
      Small q[run];
      float minus = 0;
      const float scale = in_half(Block::template part<run>(from, first, job.grid, q, minus));
      const float less = in_half(minus);
      for (int i = 0; i < run; ++i) {
        const float product = in_half(scale * static_cast<float>(q[i]));
        to[i] = Block::has_minus ? in_half(product - less) : product;
      }
    }
}

template <class... Blocks>
bool decode_one_of(const BlockJob& job) {
  return ((job.type == Blocks::id && (decode<Blocks>(job), true)) || ...);
}

}  // namespace

bool DecodeInHalf(const BlockJob& job) {
  return decode_one_of<Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS>(
      job);
}

}  // namespace distorch::quant::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace distorch::quant {
namespace {
HWY_EXPORT(DecodeInHalf);
}  // namespace

bool decode_in_half_on_cpu(const BlockJob& job) { return HWY_DYNAMIC_DISPATCH(DecodeInHalf)(job); }

}  // namespace distorch::quant
#endif
