#include "distorch/quant/small_float_rounding.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/small_float_rounding.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::CappedTag<float, 16>;
using Words = hn::RebindToUnsigned<D>;
using Whole = hn::RebindToSigned<D>;
using V = hn::Vec<D>;
using W = hn::Vec<Words>;

inline W word(std::uint32_t value) { return hn::Set(Words(), value); }

/// Codes without sign of sizes that the type holds: `mantissa` bits of it, the exponent `bias` of
/// which stands for 1. Rounded by adding: small ones to a number whose last place is theirs.
template <int mantissa, int bias>
inline W codes_of(W size) {
  constexpr int dropped = 23 - mantissa;
  constexpr std::uint32_t least_normal = static_cast<std::uint32_t>(128 - bias) << 23;
  constexpr std::uint32_t last_place = static_cast<std::uint32_t>(128 - bias + dropped) << 23;
  const V moved = hn::Add(hn::BitCast(D(), size), hn::BitCast(D(), word(last_place)));
  const W small = hn::Sub(hn::BitCast(Words(), moved), word(last_place));
  const W even = hn::And(hn::ShiftRight<dropped>(size), word(1));
  const W half = word((1u << (dropped - 1)) - 1);
  const W apart = word(static_cast<std::uint32_t>(127 - bias) << 23);
  const W normal = hn::ShiftRight<dropped>(hn::Sub(hn::Add(size, hn::Add(half, even)), apart));
  const auto is_small =
      hn::Lt(hn::BitCast(Whole(), size), hn::BitCast(Whole(), word(least_normal)));
  return hn::IfThenElse(hn::RebindMask(Words(), is_small), small, normal);
}

inline W size_of(V v) { return hn::And(hn::BitCast(Words(), v), word(0x7fffffffu)); }

/// e4m3 codes of numbers within -448 .. 448, or NaN.
inline W e4m3(V v) {
  const W sign = hn::ShiftRight<24>(hn::And(hn::BitCast(Words(), v), word(0x80000000u)));
  const W codes = codes_of<3, 7>(size_of(v));
  const auto number = hn::RebindMask(Words(), hn::Eq(v, v));
  return hn::Or(hn::IfThenElse(number, codes, word(0x7f)), sign);
}

/// Within -most .. most; NaN stays.
inline V within(V v, float most) {
  const V limited = hn::Max(hn::Min(v, hn::Set(D(), most)), hn::Set(D(), -most));
  return hn::IfThenElse(hn::Eq(v, v), limited, v);
}

inline void store_bytes(W codes, std::uint8_t* to) {
  const hn::Rebind<std::uint8_t, D> bytes;
  hn::StoreU(hn::DemoteTo(bytes, hn::BitCast(Whole(), codes)), bytes, to);
}

constexpr int kBlock = 16;
constexpr float kLargestEight = 448, kLargestFour = 6;

/// One number; the same arithmetic as of vectors.
inline std::uint8_t e4m3_of(float value) {
  const V v = within(hn::Set(D(), value), kLargestEight);
  return static_cast<std::uint8_t>(hn::GetLane(e4m3(v)));
}

/// What an e4m3 code without sign stands for.
inline float from_e4m3(std::uint32_t code) {
  constexpr float least = 0x1p-9f;
  if (code == 0x7f) return NAN;
  if (code < 8) return static_cast<float>(code) * least;
  return hn::GetLane(hn::BitCast(D(), word((code << 20) + (120u << 23))));
}

/// The largest magnitude of a block; NaN where one is.
inline float largest_of(const float* x) {
  V largest = hn::Zero(D()), strange = hn::Zero(D());
  for (int i = 0; i < kBlock; i += static_cast<int>(hn::Lanes(D()))) {
    const V v = hn::LoadU(D(), x + i);
    largest = hn::Max(hn::Abs(v), largest);
    strange = hn::IfThenElse(hn::Eq(v, v), strange, v);
  }
  const float result = hn::GetLane(hn::MaxOfLanes(D(), largest));
  const float rest = hn::GetLane(hn::SumOfLanes(D(), strange));
  return rest == 0 ? result : NAN;
}

/// The codes of a block in eight bytes; all 0 where the factor is.
inline void put_fours(const float* x, float factor, std::uint8_t* to) {
  alignas(16) std::uint8_t codes[kBlock];
  const V by = hn::Set(D(), factor == 0 ? 1 : factor);
  const auto some = hn::Set(D(), factor == 0 ? 0.0f : 1.0f);
  for (int i = 0; i < kBlock; i += static_cast<int>(hn::Lanes(D()))) {
    const V v = within(hn::Div(hn::LoadU(D(), x + i), by), kLargestFour);
    const W sign = hn::ShiftRight<28>(hn::And(hn::BitCast(Words(), v), word(0x80000000u)));
    const auto number = hn::RebindMask(Words(), hn::Eq(v, v));
    const W code = hn::Or(hn::IfThenElseZero(number, codes_of<1, 1>(size_of(v))), sign);
    const auto kept = hn::RebindMask(Words(), hn::Gt(some, hn::Zero(D())));
    store_bytes(hn::IfThenElseZero(kept, code), codes + i);
  }
  for (int i = 0; i < kBlock / 2; ++i)
    to[i] = static_cast<std::uint8_t>(codes[2 * i] << 4 | codes[2 * i + 1]);
}

}  // namespace

void ToE4m3(const float* x, std::uint8_t* to, std::int64_t size, float scale) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
  const V by = hn::Set(D(), scale);
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes)
    store_bytes(e4m3(within(hn::Div(hn::LoadU(D(), x + i), by), kLargestEight)), to + i);
  for (; i < size; ++i) to[i] = e4m3_of(x[i] / scale);
}

void ToNvfp4(const Nvfp4Job& job) {
  for (std::int64_t block = 0; block < job.size / kBlock; ++block) {
    const auto* x = job.from + block * kBlock;
    const auto scale = e4m3_of(largest_of(x) / kLargestFour / job.whole);
    job.scales[block] = scale;
    put_fours(x, from_e4m3(scale & 0x7fu) * job.whole, job.values + block * (kBlock / 2));
  }
}

}  // namespace distorch::quant::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace distorch::quant::kernels {
namespace {
HWY_EXPORT(ToE4m3);
HWY_EXPORT(ToNvfp4);
}  // namespace

void to_e4m3(const float* x, std::uint8_t* to, std::int64_t size, float scale) {
  HWY_DYNAMIC_DISPATCH(ToE4m3)(x, to, size, scale);
}

void to_nvfp4(const Nvfp4Job& job) { HWY_DYNAMIC_DISPATCH(ToNvfp4)(job); }

}  // namespace distorch::quant::kernels
#endif
