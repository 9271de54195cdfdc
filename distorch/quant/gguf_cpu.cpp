#include "distorch/quant/gguf_cpu.h"

// Highway compiles the rest of this file once for each set of instructions and chooses at run time:
// the macros are its own way of saying so. Products and sums stay two roundings (CMakeLists.txt).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/gguf_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::HWY_NAMESPACE {
namespace {

#include "distorch/quant/gguf_blocks.inc"

inline std::uint32_t bits_of(float value) {
  union {
    float value;
    std::uint32_t bits;
  } both;
  both.value = value;
  return both.bits;
}

/// Rounded to even.
inline std::uint16_t bfloat_of(float value) {
  constexpr std::uint32_t largest = 0x7f800000, nan = 0x7fc0;
  const auto bits = bits_of(value);
  const auto rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return static_cast<std::uint16_t>((bits & 0x7fffffff) > largest ? nan : rounded);
}

/// Rounded to even; the small ones by adding a half, which has their last place.
inline std::uint16_t half_from(float value) {
  constexpr std::uint32_t infinite = 0x7f800000, smallest_normal = 0x38800000;
  constexpr std::uint32_t exponents_apart = 0x38000000, half_infinite = 0x7c00, half_nan = 0x7e00;
  const auto bits = bits_of(value), size = bits & 0x7fffffff;
  const auto small = bits_of(float_of(size) + 0.5f) - bits_of(0.5f);
  const auto normal = (size + 0xfff + (size >> 13 & 1) - exponents_apart) >> 13;
  const auto finite = size < smallest_normal ? small : normal;
  const auto capped = finite < half_infinite ? finite : half_infinite;
  const auto result = size > infinite ? half_nan : size == infinite ? half_infinite : capped;
  return static_cast<std::uint16_t>(result | (bits >> 16 & 0x8000));
}

template <NumberKind kind>
struct Numbers {
  using Type = std::uint16_t;
  static inline Type from(float value) {
    return kind == NumberKind::Half ? half_from(value) : bfloat_of(value);
  }
};
template <>
struct Numbers<NumberKind::Float> {
  using Type = float;
  static inline Type from(float value) { return value; }
};

template <class Block, NumberKind kind>
void decode(const BlockJob& job) {
  constexpr int run = Block::run;
  const auto* HWY_RESTRICT from = job.blocks;
  auto* HWY_RESTRICT to = static_cast<typename Numbers<kind>::Type*>(job.numbers);
  for (std::int64_t block = 0; block < job.count; ++block, from += Block::bytes)
    for (int first = 0; first < Block::block; first += run, to += run) {
      Small q[run];
      float minus = 0;
      const float scale = Block::template part<run>(from, first, job.grid, q, minus);
      for (int i = 0; i < run; ++i) {
        const float product = scale * static_cast<float>(q[i]);
        to[i] = Numbers<kind>::from(Block::has_minus ? product - minus : product);
      }
    }
}

template <NumberKind kind, class... Blocks>
bool decode_one_of(const BlockJob& job) {
  return ((job.type == Blocks::id && (decode<Blocks, kind>(job), true)) || ...);
}

template <NumberKind kind>
bool decode_any(const BlockJob& job) {
  return decode_one_of<kind, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q8_K, Q1_0, Q2_K, Q3_K, Q4_K, Q5_K,
                       Q6_K, TQ1_0, TQ2_0, MXFP4, NVFP4, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S,
                       IQ1_S, IQ1_M, IQ4_NL, IQ4_XS>(job);
}

}  // namespace

bool Decode(const BlockJob& job) {
  switch (job.kind) {
    case NumberKind::Float: return decode_any<NumberKind::Float>(job);
    case NumberKind::Half: return decode_any<NumberKind::Half>(job);
    case NumberKind::BFloat: return decode_any<NumberKind::BFloat>(job);
  }
  return false;
}

}  // namespace distorch::quant::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace distorch::quant {
namespace {
HWY_EXPORT(Decode);
}  // namespace

bool decode_on_cpu(const BlockJob& job) { return HWY_DYNAMIC_DISPATCH(Decode)(job); }

}  // namespace distorch::quant
#endif
