#include "distorch/quant/gguf_cpu.h"

#include <cmath>

// Highway compiles the rest of this file once for each set of instructions and chooses at run time:
// the macros are its own way of saying so. Products and sums stay two roundings (CMakeLists.txt).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/gguf_cpu.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::HWY_NAMESPACE {
namespace {

#include "distorch/quant/gguf_blocks.inc"

#include "distorch/quant/cpu_numbers.inc"

inline Way way_of(const BlockJob& job) {
  return {.past_caches = job.past_caches && may_pass_caches(job.numbers, 0),
          .native = has_native_bfloat()};
}

/// q · scale - minus, each operation rounded.
template <int count, bool has_minus, NumberKind kind>
inline void scale_and_store(const Small* q, float scale, float minus,
                            typename Numbers<kind>::Type* to, Way way) {
  const hn::CappedTag<float, (count < 16 ? count : 16)> d;
  const hn::Rebind<std::int8_t, decltype(d)> bytes;
  const hn::RebindToSigned<decltype(d)> whole;
  const auto by = hn::Set(d, scale);
  const auto less = hn::Set(d, minus);
  for (int i = 0; i < count; i += static_cast<int>(hn::Lanes(d))) {
    const auto code = hn::PromoteTo(whole, hn::LoadU(bytes, q + i));
    auto v = hn::Mul(hn::ConvertTo(d, code), by);
    if (has_minus) v = hn::Sub(v, less);
    store<kind>(d, v, to + i, way);
  }
}

template <class Block, NumberKind kind>
void decode_plain(const BlockJob& job) {
  constexpr int run = Block::run;
  const auto* HWY_RESTRICT from = job.blocks;
  auto* HWY_RESTRICT to = static_cast<typename Numbers<kind>::Type*>(job.numbers);
  const Way way = way_of(job);
  for (std::int64_t block = 0; block < job.count; ++block, from += Block::bytes)
    for (int first = 0; first < Block::block; first += run, to += run) {
      alignas(64) Small q[run];
      float minus = 0;
      const float scale = Block::template part<run>(from, first, job.grid, q, minus);
      scale_and_store<run, Block::has_minus, kind>(q, scale, minus, to, way);
    }
}

#if HWY_TARGET == HWY_SCALAR  // there is nothing wide about it
template <class Block, NumberKind kind>
void decode_wide(const BlockJob&) {}
template <class Block>
constexpr bool is_wide = false;
#else
#include "distorch/quant/gguf_cpu_wide.inc"
template <class Block>
constexpr bool is_wide = Wide<Block>::is_there;
#endif

template <class Block, NumberKind kind>
void decode_best(const BlockJob& job) {
  if constexpr (is_wide<Block>)
    decode_wide<Block, kind>(job);
  else
    decode_plain<Block, kind>(job);
}

template <NumberKind kind, class... Blocks>
bool decode_one_of(const BlockJob& job) {
  return ((job.type == Blocks::id && (decode_best<Blocks, kind>(job), true)) || ...);
}

template <NumberKind kind>
bool decode_any(const BlockJob& job) {
  return decode_one_of<kind, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q8_K, Q1_0, Q2_K, Q3_K, Q4_K, Q5_K,
                       Q6_K, TQ1_0, TQ2_0, MXFP4, NVFP4, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S,
                       IQ1_S, IQ1_M, IQ4_NL, IQ4_XS>(job);
}

}  // namespace

bool Decode(const BlockJob& job) {
  bool known = false;
  switch (job.kind) {
    case NumberKind::Float: known = decode_any<NumberKind::Float>(job); break;
    case NumberKind::Half: known = decode_any<NumberKind::Half>(job); break;
    case NumberKind::BFloat: known = decode_any<NumberKind::BFloat>(job); break;
  }
  if (job.past_caches) hwy::FlushStream();
  return known;
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
