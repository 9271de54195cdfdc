#include "distorch/quant/small_floats.h"

#include <algorithm>

// Highway compiles the rest of this file once for each set of instructions and chooses at run time:
// the macros are its own way of saying so. Products stay roundings of their own (CMakeLists.txt).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/small_floats.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::HWY_NAMESPACE {
namespace {

#include "distorch/quant/cpu_stores.inc"

/// Vectors of at most 8 numbers or, of codes that are found one by one, 16.
template <SmallFloat type>
using Tag = hn::CappedTag<float, (type == SmallFloat::E2M1 ? 8 : 16)>;
template <SmallFloat type>
constexpr std::int64_t kStep = type == SmallFloat::E2M1 ? 16 : hn::MaxLanes(Tag<type>());

/// The bits of float16 as float32: Highway's own way knows no infinity where there is no instruction.
template <class D>
inline hn::Vec<D> halves_as_numbers(D d, hn::Vec<hn::Rebind<std::uint16_t, D>> halves) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), halves));
#else
  const hn::RebindToUnsigned<D> words;
  const auto bits = hn::PromoteTo(words, halves);
  const auto small = hn::ShiftLeft<13>(hn::And(bits, hn::Set(words, 0x7fff)));
  const auto scaled = hn::Mul(hn::BitCast(d, small), hn::Set(d, 0x1p112f));
  const auto top = hn::Set(words, 0x7c00);
  const auto endless =
      hn::IfThenElseZero(hn::Eq(hn::And(bits, top), top), hn::Set(words, 0x7f800000));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(words, 0x8000)));
  return hn::BitCast(d, hn::Or(hn::Or(hn::BitCast(words, scaled), endless), sign));
#endif
}

/// Bytes as float32. A byte's bits moved up are a float16, whose exponents are those of E5M2 and
/// eight below those of E4M3.
template <SmallFloat type, class D>
inline hn::Vec<D> bytes_as_numbers(D d, const std::uint8_t* from) {
  const hn::Rebind<std::uint8_t, D> bytes;
  const hn::Rebind<std::uint16_t, D> words;
  const auto code = hn::PromoteTo(words, hn::LoadU(bytes, from));
  if constexpr (type == SmallFloat::E5M2) {
    return halves_as_numbers(d, hn::ShiftLeft<8>(code));
  } else {
    const auto size = hn::And(code, hn::Set(words, 0x7f));
    const auto sign = hn::ShiftLeft<8>(hn::And(code, hn::Set(words, 0x80)));
    const auto number = hn::IfThenElse(hn::Eq(size, hn::Set(words, 0x7f)), hn::Set(words, 0x7e00),
                                       hn::ShiftLeft<7>(size));
    return hn::Mul(halves_as_numbers(d, hn::Or(number, sign)), hn::Set(d, 256.0f));
  }
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
inline void decode_step(const std::uint8_t* from, typename Numbers<kind>::Type* to, float by) {
  const Tag<type> d;
  const auto factor = hn::Set(d, by);
  if constexpr (type == SmallFloat::E2M1) {
    const hn::Rebind<std::uint16_t, Tag<type>> words;
    const hn::RebindToUnsigned<Tag<type>> bits;
    alignas(32) std::uint16_t numbers[16];
    pairs_as_bfloats(from, numbers);
    for (int i = 0; i < 16; i += static_cast<int>(hn::Lanes(d))) {
      const auto wide = hn::ShiftLeft<16>(hn::PromoteTo(bits, hn::Load(words, numbers + i)));
      store<kind>(d, hn::Mul(hn::BitCast(d, wide), factor), to + i);
    }
  } else {
    store<kind>(d, hn::Mul(bytes_as_numbers<type>(d, from), factor), to);
  }
}

/// `count` numbers times `by`; what is left of a step is decoded in a step's place beside.
template <SmallFloat type, NumberKind kind>
inline void decode_run(const std::uint8_t* from, typename Numbers<kind>::Type* to,
                       std::int64_t count, float by) {
  constexpr std::int64_t step = kStep<type>, a_byte = type == SmallFloat::E2M1 ? 2 : 1;
  std::int64_t i = 0;
  for (; i + step <= count; i += step) decode_step<type, kind>(from + i / a_byte, to + i, by);
  if constexpr (step > 1) {
    if (i == count) return;
    std::uint8_t codes[step] = {};
    typename Numbers<kind>::Type numbers[step];
    std::copy(from + i / a_byte, from + count / a_byte, codes);
    decode_step<type, kind>(codes, numbers, by);
    std::copy(numbers, numbers + (count - i), to + i);
  }
}

template <SmallFloat type, NumberKind kind>
void decode(const SmallFloats& job) {
  constexpr std::int64_t a_byte = type == SmallFloat::E2M1 ? 2 : 1;
  auto* to = static_cast<typename Numbers<kind>::Type*>(job.to);
  const auto* factors = job.factors;
  for (std::int64_t first = 0; first < job.count; first += job.run)
    decode_run<type, kind>(job.from + first / a_byte, to + first,
                           std::min(job.run, job.count - first), *factors++);
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
