#include "distorch/quant/small_floats.h"

#include <algorithm>
#include <cmath>

// Highway compiles the rest of this file once for each set of instructions and chooses at run time:
// the macros are its own way of saying so. Products stay roundings of their own (CMakeLists.txt).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/small_floats.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::HWY_NAMESPACE {
namespace {

#include "distorch/quant/cpu_numbers.inc"

/// Vectors of at most 8 numbers or, of codes that are found one by one, 16.
template <SmallFloat type>
using Tag = hn::CappedTag<float, (type == SmallFloat::E2M1 ? 8 : 16)>;
template <SmallFloat type>
constexpr int kLanes = static_cast<int>(hn::MaxLanes(Tag<type>()));
template <SmallFloat type>
constexpr int kStep = type == SmallFloat::E2M1 ? 16
                      : kLanes<type> == 1      ? 1
                                               : 2 * kLanes<type>;

/// Codes of E4M3 as float16, which are 256 times less: a byte's bits moved up are a float16 whose
/// exponents are eight higher. `one_nan`: NaN has no sign, as bfloat_bits() makes it.
template <bool one_nan, class DW>
inline hn::Vec<DW> e4m3_as_halves(DW words, hn::Vec<DW> code) {
  const auto size = hn::And(code, hn::Set(words, 0x7f));
  const auto sign = hn::ShiftLeft<8>(hn::And(code, hn::Set(words, 0x80)));
  const auto is_nan = hn::Eq(size, hn::Set(words, 0x7f));
  const auto number = hn::Or(hn::ShiftLeft<7>(size), sign);
  const auto nan = hn::Set(words, 0x7e00);
  return hn::IfThenElse(is_nan, one_nan ? nan : hn::Or(nan, sign), number);
}

/// Bytes as float32. Those of E5M2 moved up are float16.
template <SmallFloat type, class D>
inline hn::Vec<D> bytes_as_numbers(D d, const std::uint8_t* from) {
  const hn::Rebind<std::uint8_t, D> bytes;
  const hn::Rebind<std::uint16_t, D> words;
  const auto code = hn::PromoteTo(words, hn::LoadU(bytes, from));
  if constexpr (type == SmallFloat::E5M2)
    return halves_as_numbers(d, hn::ShiftLeft<8>(code));
  else
    return hn::Mul(halves_as_numbers(d, e4m3_as_halves<false>(words, code)), hn::Set(d, 256.0f));
}

// The bytes of the bfloat16 that codes of E2M1 mean: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and with a sign.
constexpr std::uint8_t kUpper[16] = {0x00, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40,
                                     0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0};
constexpr std::uint8_t kLower[16] = {0x00, 0x00, 0x80, 0xc0, 0x00, 0x40, 0x80, 0xc0,
                                     0x00, 0x00, 0x80, 0xc0, 0x00, 0x40, 0x80, 0xc0};

/// Eight bytes of two codes as sixteen bfloat16.
inline void pairs_as_bfloats(const std::uint8_t* from, std::uint16_t* to) {
#if HWY_TARGET == HWY_SCALAR  // it has no vectors of sixteen bytes
  for (int i = 0; i < 16; ++i) {
    const auto code = i % 2 ? from[i / 2] & 15 : from[i / 2] >> 4;
    to[i] = static_cast<std::uint16_t>(kUpper[code] << 8 | kLower[code]);
  }
#else
  const hn::Full128<std::uint8_t> d;
  const auto pairs = hn::ZeroExtendVector(d, hn::LoadU(hn::Half<decltype(d)>(), from));
  const auto codes =
      hn::InterleaveLower(d, hn::ShiftRight<4>(pairs), hn::And(pairs, hn::Set(d, 15)));
  const auto upper = hn::TableLookupBytes(hn::LoadU(d, kUpper), codes);
  const auto lower = hn::TableLookupBytes(hn::LoadU(d, kLower), codes);
  auto* bytes = reinterpret_cast<std::uint8_t*>(to);
  hn::StoreU(hn::InterleaveLower(d, lower, upper), d, bytes);
  hn::StoreU(hn::InterleaveUpper(d, lower, upper), d, bytes + 16);
#endif
}

/// kStep numbers times `by`.
template <SmallFloat type, NumberKind kind>
inline void decode_step(const std::uint8_t* from, typename Numbers<kind>::Type* to, float by,
                        Way way) {
  const Tag<type> d;
  constexpr int lanes = kLanes<type>;
  alignas(32) std::uint16_t bfloats[16];
  if constexpr (type == SmallFloat::E2M1) pairs_as_bfloats(from, bfloats);
  for (int i = 0; i < kStep<type>; i += lanes) {
    hn::Vec<Tag<type>> v;
    if constexpr (type == SmallFloat::E2M1) {
      const hn::Rebind<std::uint16_t, Tag<type>> words;
      const hn::RebindToUnsigned<Tag<type>> bits;
      v = hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(bits, hn::Load(words, bfloats + i))));
    } else {
      v = bytes_as_numbers<type>(d, from + i);
    }
    store<kind>(d, hn::Mul(v, hn::Set(d, by)), to + i, way);
  }
}

/// kStep numbers of E4M3 times a moderate factor as bfloat16.
inline void decode_step_in_twos(const std::uint8_t* from, std::uint16_t* to, float by, Way way) {
#if HWY_TARGET != HWY_SCALAR
  const Tag<SmallFloat::E4M3> d;
  const hn::Repartition<std::uint16_t, decltype(d)> words;
  const hn::Half<decltype(words)> half;
  const hn::Rebind<std::uint8_t, decltype(words)> bytes;
  const auto halves = e4m3_as_halves<true>(words, hn::PromoteTo(words, hn::LoadU(bytes, from)));
  const auto factor = hn::Set(d, 256 * by);
  const auto lower = hn::Mul(halves_as_numbers(d, hn::LowerHalf(half, halves)), factor);
  const auto upper = hn::Mul(halves_as_numbers(d, hn::UpperHalf(half, halves)), factor);
  store_two(d, lower, upper, to, way);
#else
  decode_step<SmallFloat::E4M3, NumberKind::BFloat>(from, to, by, way);
#endif
}

/// `count` numbers times `by`; what is left of a step is decoded in a step's place beside.
template <SmallFloat type, NumberKind kind>
inline void decode_run(const std::uint8_t* from, typename Numbers<kind>::Type* to,
                       std::int64_t count, float by, Way way) {
  constexpr std::int64_t step = kStep<type>, a_byte = type == SmallFloat::E2M1 ? 2 : 1;
  std::int64_t i = 0;
  if constexpr (type == SmallFloat::E4M3 && kind == NumberKind::BFloat)
    if (is_moderate(by))
      for (; i + step <= count; i += step) decode_step_in_twos(from + i, to + i, by, way);
  for (; i + step <= count; i += step) decode_step<type, kind>(from + i / a_byte, to + i, by, way);
  if constexpr (step > 1) {
    if (i == count) return;
    std::uint8_t codes[step] = {};
    typename Numbers<kind>::Type numbers[step];
    std::copy(from + i / a_byte, from + count / a_byte, codes);
    decode_step<type, kind>(codes, numbers, by, {});
    std::copy(numbers, numbers + (count - i), to + i);
  }
}

template <SmallFloat type, NumberKind kind>
void decode(const SmallFloats& job) {
  constexpr std::int64_t a_byte = type == SmallFloat::E2M1 ? 2 : 1;
  constexpr std::int64_t size = sizeof(typename Numbers<kind>::Type);
  auto* to = static_cast<typename Numbers<kind>::Type*>(job.to);
  const auto* factors = job.factors;
  const Way way{
      .past_caches = job.past_caches && may_pass_caches(to, job.run * size, kLanes<type> * 4),
      .native = has_native_bfloat()};
  for (std::int64_t first = 0; first < job.count; first += job.run)
    decode_run<type, kind>(job.from + first / a_byte, to + first,
                           std::min(job.run, job.count - first), *factors++, way);
  if (way.past_caches) hwy::FlushStream();
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
