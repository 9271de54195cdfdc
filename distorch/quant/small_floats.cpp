#include "distorch/quant/small_floats.h"

#include <algorithm>
#include <bit>

// Highway compiles the rest of this file once for each set of instructions and chooses at run time:
// the macros are its own way of saying so. Products stay roundings of their own (CMakeLists.txt).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/small_floats.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::HWY_NAMESPACE {
namespace {

#include "distorch/quant/cpu_numbers.inc"

constexpr std::uint32_t kInfinite = 0x7f800000, kNaN = 0x7fc00000;

/// Moved to float32's place their exponents are too small; those without one count steps.
template <SmallFloat type>
inline float number_of(std::uint32_t code) {
  constexpr bool wide = type == SmallFloat::E5M2;
  constexpr std::uint32_t shift = wide ? 21 : 20, first_normal = wide ? 4 : 8;
  constexpr std::uint32_t exponents_apart = wide ? 112 : 120;
  constexpr float step = wide ? 0x1p-16f : 0x1p-9f;
  const std::uint32_t size = code & 0x7f, sign = (code & 0x80) << 24;
  const auto small =
      std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<int>(size)) * step);
  const auto normal = (size << shift) + (exponents_apart << 23);
  auto bits = pick(size < first_normal, small, normal);
  if (wide) bits = pick(size == 0x7c, kInfinite, bits);
  bits = pick(size > (wide ? 0x7c : 0x7e), kNaN, bits);
  return std::bit_cast<float>(bits | sign);
}

/// 0, 0.5, 1, 1.5, 2, 3, 4, 6 and the same with a sign.
template <>
inline float number_of<SmallFloat::E2M1>(std::uint32_t code) {
  const std::uint32_t size = code & 7, sign = (code & 8) << 28;
  const auto small =
      std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<int>(size)) * 0.5f);
  const auto normal = (size / 2 + 126) << 23 | (size & 1) << 22;
  return std::bit_cast<float>(pick(size < 2, small, normal) | sign);
}

template <SmallFloat type, NumberKind kind>
void decode_run(const std::uint8_t* HWY_RESTRICT from,
                typename Numbers<kind>::Type* HWY_RESTRICT to, std::int64_t count, float by) {
  if constexpr (type == SmallFloat::E2M1) {
    for (std::int64_t i = 0; i < count / 2; ++i) {
      to[2 * i] = Numbers<kind>::from(number_of<type>(from[i] >> 4) * by);
      to[2 * i + 1] = Numbers<kind>::from(number_of<type>(from[i] & 15u) * by);
    }
  } else {
    for (std::int64_t i = 0; i < count; ++i)
      to[i] = Numbers<kind>::from(number_of<type>(from[i]) * by);
  }
}

/// Short runs: loops over one would be too short for vectors, so that a stretch of them is gone over
/// once for each operation, in the nearest cache.
template <SmallFloat type, NumberKind kind, int run>
void decode_blocks(const SmallFloats& job) {
  constexpr std::int64_t stretch = 1024, each_byte = type == SmallFloat::E2M1 ? 2 : 1;
  float numbers[stretch];
  auto* to = static_cast<typename Numbers<kind>::Type*>(job.to);
  for (std::int64_t first = 0; first < job.count; first += stretch) {
    const auto count = std::min(stretch, job.count - first);
    decode_run<type, NumberKind::Float>(job.from + first / each_byte, numbers, count, 1.0f);
    const auto* factors = job.factors + first / run;
    for (std::int64_t block = 0; block < count / run; ++block) {
      const float by = factors[block];
      for (int i = 0; i < run; ++i) numbers[block * run + i] *= by;
    }
    for (std::int64_t i = count / run * run; i < count; ++i) numbers[i] *= factors[count / run];
    for (std::int64_t i = 0; i < count; ++i) to[first + i] = Numbers<kind>::from(numbers[i]);
  }
}

template <SmallFloat type, NumberKind kind>
void decode(const SmallFloats& job) {
  constexpr int block = type == SmallFloat::E2M1 ? 16 : 32;  // nvfp4's, mxfp8's
  constexpr std::int64_t each_byte = type == SmallFloat::E2M1 ? 2 : 1;
  if (job.run == block) return decode_blocks<type, kind, block>(job);
  auto* to = static_cast<typename Numbers<kind>::Type*>(job.to);
  for (std::int64_t first = 0; first < job.count; first += job.run)
    decode_run<type, kind>(job.from + first / each_byte, to + first,
                           std::min(job.run, job.count - first), job.factors[first / job.run]);
}

template <SmallFloat type>
void decode_to(const SmallFloats& job) {
  switch (job.kind) {
    case NumberKind::Float: return decode<type, NumberKind::Float>(job);
    case NumberKind::Half: return decode<type, NumberKind::Half>(job);
    case NumberKind::BFloat: return decode<type, NumberKind::BFloat>(job);
  }
}

}  // namespace

void DecodeSmall(const SmallFloats& job) {
  switch (job.type) {
    case SmallFloat::E4M3: return decode_to<SmallFloat::E4M3>(job);
    case SmallFloat::E5M2: return decode_to<SmallFloat::E5M2>(job);
    case SmallFloat::E2M1: return decode_to<SmallFloat::E2M1>(job);
  }
}

}  // namespace distorch::quant::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace distorch::quant {
namespace {
HWY_EXPORT(DecodeSmall);
}  // namespace

void decode_small_floats(const SmallFloats& job) { HWY_DYNAMIC_DISPATCH(DecodeSmall)(job); }

}  // namespace distorch::quant
#endif
