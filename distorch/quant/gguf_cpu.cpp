#include "distorch/quant/gguf_cpu.h"

#include <bit>

// Highway compiles the rest of this file once for each set of instructions and chooses at run time:
// the macros are its own way of saying so. Products and sums stay two roundings (CMakeLists.txt).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "distorch/quant/gguf_cpu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace distorch::quant::HWY_NAMESPACE {
namespace {

#include "distorch/quant/cpu_numbers.inc"
#include "distorch/quant/gguf_blocks.inc"

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
