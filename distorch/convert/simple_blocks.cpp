#include <cmath>
#include <cstring>

#include "distorch/convert/blocks.h"
#include "distorch/convert/k_search.h"

// Blocks of 32 numbers with one scale. Highway compiles this file once for each set of instructions
// and chooses at run time: the macros are its own way of saying so.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/convert/simple_blocks.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::convert::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
constexpr int kBlock = 32;
using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
using Codes = std::uint8_t[kBlock];

/// Smallest and largest number; `rest` is no number where one is not finite.
struct Range {
  float low = 0, high = 0, rest = 0;
};

inline Range range_of(const float* from) {
  const int lanes = static_cast<int>(hn::Lanes(D()));
  V low = hn::LoadU(D(), from), high = low, rest = hn::Zero(D());
  for (int i = 0; i < kBlock; i += lanes) {
    const V x = hn::LoadU(D(), from + i);
    low = hn::Min(low, x);
    high = hn::Max(high, x);
    rest = hn::Add(rest, hn::Mul(x, hn::Zero(D())));
  }
  return {hn::GetLane(hn::MinOfLanes(D(), low)), hn::GetLane(hn::MaxOfLanes(D(), high)),
          hn::GetLane(hn::SumOfLanes(D(), rest))};
}

/// The number that is furthest from zero, the first of two, with its sign.
inline float furthest(const float* from, const Range& range) {
  if (range.high != -range.low) return range.high > -range.low ? range.high : range.low;
  for (int i = 0; i < kBlock; ++i)
    if (std::abs(from[i]) == range.high) return from[i];
  return range.high;
}

/// Whole parts of (x - less) · by + more, which are 0 .. most.
inline void codes_of(const float* from, float less, float by, float more, int most, Codes& codes) {
  const hn::Rebind<std::uint8_t, D> bytes;
  const hn::RebindToSigned<D> whole;
  const int lanes = static_cast<int>(hn::Lanes(D()));
  for (int i = 0; i < kBlock; i += lanes) {
    const V x = hn::Sub(hn::LoadU(D(), from + i), hn::Set(D(), less));
    const V v = hn::Add(hn::Mul(x, hn::Set(D(), by)), hn::Set(D(), more));
    const auto code = hn::Min(hn::ConvertTo(whole, v), hn::Set(whole, most));
    hn::StoreU(hn::DemoteTo(bytes, code), bytes, codes + i);
  }
}

inline void put_half(std::uint8_t* to, float number) {
  const auto bits = to_half(number);
  std::memcpy(to, &bits, sizeof bits);
}

/// The lower four bits of number i beside those of number i + 16, the fifth in a word before them.
inline void put_codes(const Codes& codes, std::uint8_t* high, std::uint8_t* low) {
  for (int i = 0; i < kBlock / 2; ++i)
    low[i] = static_cast<std::uint8_t>((codes[i] & 15) | codes[i + kBlock / 2] << 4);
  if (!high) return;
  std::uint32_t fifth = 0;
  for (int i = 0; i < kBlock; ++i) fifth |= static_cast<std::uint32_t>(codes[i] >> 4 & 1) << i;
  std::memcpy(high, &fifth, sizeof fifth);
}

/// float16 has to hold it.
inline bool fits(float scale, const Range& range) {
  constexpr float most = 65504;
  return std::abs(scale) <= most && range.rest == 0;
}

/// Numbers as (code - half) · d: the furthest one is met exactly, at the end that reaches further.
bool pack_signed(const float* from, std::uint8_t* to, std::int64_t count, int half) {
  const int bytes = half == 8 ? 18 : 22;
  bool good = true;
  for (std::int64_t block = 0; block < count; ++block, from += kBlock, to += bytes) {
    const auto range = range_of(from);
    const float d = furthest(from, range) / static_cast<float>(-half);
    good = good && fits(d, range);
    Codes codes;
    codes_of(from, 0, d != 0 ? 1 / d : 0, static_cast<float>(half) + 0.5f, 2 * half - 1, codes);
    put_half(to, d);
    put_codes(codes, half == 8 ? nullptr : to + 2, half == 8 ? to + 2 : to + 6);
  }
  return good;
}

/// Numbers as code · d + least.
bool pack_offset(const float* from, std::uint8_t* to, std::int64_t count, int most) {
  const int bytes = most == 15 ? 20 : 24;
  bool good = true;
  for (std::int64_t block = 0; block < count; ++block, from += kBlock, to += bytes) {
    const auto range = range_of(from);
    const float d = (range.high - range.low) / static_cast<float>(most);
    good = good && fits(d, range) && fits(range.low, range);
    Codes codes;
    codes_of(from, range.low, d != 0 ? 1 / d : 0, 0.5f, most, codes);
    put_half(to, d);
    put_half(to + 2, range.low);
    put_codes(codes, most == 15 ? nullptr : to + 4, most == 15 ? to + 4 : to + 8);
  }
  return good;
}

/// Halves away from zero.
inline V rounded(V v) {
  const V size = hn::Abs(v), whole = hn::Floor(size), rest = hn::Sub(size, whole);
  return hn::CopySign(hn::Add(whole, hn::Floor(hn::Add(rest, rest))), v);
}

bool pack_bytes(const float* from, std::uint8_t* to, std::int64_t count) {
  const hn::Rebind<std::int8_t, D> bytes;
  const hn::RebindToSigned<D> whole;
  const int lanes = static_cast<int>(hn::Lanes(D()));
  bool good = true;
  for (std::int64_t block = 0; block < count; ++block, from += kBlock, to += 34) {
    const auto range = range_of(from);
    const float d = std::abs(furthest(from, range)) / 127;
    good = good && fits(d, range);
    const V inverse = hn::Set(D(), d != 0 ? 1 / d : 0);
    put_half(to, d);
    for (int i = 0; i < kBlock; i += lanes) {
      const V v = rounded(hn::Mul(hn::LoadU(D(), from + i), inverse));
      hn::StoreU(hn::DemoteTo(bytes, hn::ConvertTo(whole, v)), bytes,
                 reinterpret_cast<std::int8_t*>(to) + 2 + i);
    }
  }
  return good;
}

}  // namespace

bool PackQ8_0(const float* from, std::uint8_t* to, std::int64_t count) {
  return pack_bytes(from, to, count);
}
bool PackQ4_0(const float* from, std::uint8_t* to, std::int64_t count) {
  return pack_signed(from, to, count, 8);
}
bool PackQ5_0(const float* from, std::uint8_t* to, std::int64_t count) {
  return pack_signed(from, to, count, 16);
}
bool PackQ4_1(const float* from, std::uint8_t* to, std::int64_t count) {
  return pack_offset(from, to, count, 15);
}
bool PackQ5_1(const float* from, std::uint8_t* to, std::int64_t count) {
  return pack_offset(from, to, count, 31);
}

}  // namespace distorch::convert::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace distorch::convert {
namespace {
HWY_EXPORT(PackQ8_0);
HWY_EXPORT(PackQ4_0);
HWY_EXPORT(PackQ5_0);
HWY_EXPORT(PackQ4_1);
HWY_EXPORT(PackQ5_1);
}  // namespace

bool pack_q8_0(const float* from, std::uint8_t* to, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(PackQ8_0)(from, to, count);
}
bool pack_q4_0(const float* from, std::uint8_t* to, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(PackQ4_0)(from, to, count);
}
bool pack_q5_0(const float* from, std::uint8_t* to, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(PackQ5_0)(from, to, count);
}
bool pack_q4_1(const float* from, std::uint8_t* to, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(PackQ4_1)(from, to, count);
}
bool pack_q5_1(const float* from, std::uint8_t* to, std::int64_t count) {
  return HWY_DYNAMIC_DISPATCH(PackQ5_1)(from, to, count);
}

}  // namespace distorch::convert
#endif
