#include <ATen/ATen.h>
#include <fmt/format.h>

#include "distorch/base/align.h"
#include "distorch/device/cuda/numbers.h"
#include "distorch/device/streams.h"
#include "distorch/quant/block_scaled.h"
#include "distorch/quant/scaled_inputs.h"

namespace distorch::quant::cuda {
namespace {

using device::cuda::KernelSource;

// A block of threads a row (of the scales' tiles), a thread a block of numbers. FOUR: nvfp4.
constexpr const char* kText = R"(
#if FOUR
constexpr int kBlock = 16;
typedef uint2 Codes;
#else
constexpr int kBlock = 32;
struct alignas(16) Codes { unsigned words[8]; };
#endif
__device__ __forceinline__ float of_eight_bits(unsigned code) {
  const unsigned size = code & 0x7fu;
  if (size == 0x7fu) return __uint_as_float(0x7fc00000u);
  return size < 8 ? size * 0.001953125f : __uint_as_float((size << 20) + (120u << 23));
}
// 0, 0.5, 1, 1.5, 2, 3, 4, 6 by the nearest, halves to the even code.
__device__ __forceinline__ unsigned four_bits(float v) {
  const float size = fabsf(v);
  const unsigned code = (size > 0.25f) + (size >= 0.75f) + (size > 1.25f) + (size >= 1.75f) +
                        (size > 2.5f) + (size >= 3.5f) + (size > 5.0f);
  return code | (__float_as_uint(v) >> 28 & 8u);
}
extern "C" __global__ void scaled_inputs(const Number* __restrict__ x,
                                         unsigned char* __restrict__ values,
                                         unsigned char* __restrict__ scales,
                                         const float* __restrict__ whole, int rows, int padded,
                                         int width) {
  const int row = blockIdx.x, blocks = width / kBlock, filled = (blocks + 3) / 4 * 4;
  for (int block = threadIdx.x; block < filled; block += blockDim.x) {
    float v[kBlock], largest = 0, strange = 0;
    const bool own = row < rows && block < blocks;
#pragma unroll
    for (int i = 0; i < kBlock; i += 8) {
      Eight eight;
      if (own) eight = *(const Eight*)(x + (long long)row * width + block * kBlock + i);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        v[i + j] = own ? up(eight.v[j]) : 0.0f;
        largest = fmaxf(largest, fabsf(v[i + j]));
        strange += v[i + j] * 0.0f;
      }
    }
    largest += strange;
    unsigned scale;
    float factor;
#if FOUR
    const float all = *whole;
    scale = largest == 0 ? 0 : to_e4m3(__fdiv_rn(__fdiv_rn(largest, 6.0f), all));
    factor = __fmul_rn(of_eight_bits(scale), all);
#else
    const unsigned needed = __float_as_uint(__fdiv_rn(largest, 448.0f));
    scale = (needed >> 23) + ((needed & 0x7fffffu) != 0);
    if (scale > 254) scale = largest == largest ? 254 : 255;
    if (largest == 0) scale = 0;
    factor = __uint_as_float(scale ? scale << 23 : 0x00400000u);
#endif
    const long long tile = (long long)(row / 128) * (filled / 4) + block / 4;
    scales[tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4] = (unsigned char)scale;
    if (row >= padded || block >= blocks) continue;
    Codes codes;
    unsigned* words = (unsigned*)&codes;
#pragma unroll
    for (int i = 0; i < (int)sizeof(Codes) / 4; ++i) words[i] = 0;
#pragma unroll
    for (int i = 0; i < kBlock; ++i) {
      const float part = factor == 0 ? 0.0f : __fdiv_rn(v[i], factor);
#if FOUR
      words[i / 8] |= four_bits(part) << (8 * (i % 8 / 2) + (i % 2 ? 0 : 4));
#else
      words[i / 4] |= to_e4m3(part) << (8 * (i % 4));
#endif
    }
    *(Codes*)(values + ((long long)row * blocks + block) * sizeof(Codes)) = codes;
  }
}
)";

constexpr KernelSource source{"scaled_inputs", kText, device::cuda::kNumbers};

}  // namespace

const KernelSource& scaled_inputs_source() { return source; }

ScaledInputs scaled_inputs(const at::Tensor& x, const at::Tensor& whole) {
  constexpr std::int64_t multiple = 32, tile_rows = 128, number_alignment = 16;
  constexpr unsigned threads = 128;
  const bool four = whole.defined();
  const char* kind = device::cuda::define_of(x.scalar_type());
  auto from = x.contiguous();
  if (reinterpret_cast<std::uintptr_t>(from.const_data_ptr()) % number_alignment != 0)
    from = from.clone();
  if (!kind || x.numel() == 0) return {};
  auto* function = device::cuda::kernel(x.device().index(), source,
                                        fmt::format("{} -DFOUR={}", kind, four ? 1 : 0));
  if (!function) return {};
  int rows = static_cast<int>(x.size(0)), width = static_cast<int>(x.size(1));
  int padded = static_cast<int>(align_up(rows, multiple));
  const auto bytes = x.options().dtype(at::kByte);
  auto values = at::empty({padded, four ? width / 2 : width}, bytes);
  auto scales = at::empty(blocked_shape(padded, width / (four ? 16 : 32)), bytes);
  const auto all = four ? whole.to(at::kFloat).contiguous() : whole;
  const void *numbers = from.const_data_ptr(), *one = four ? all.const_data_ptr() : nullptr;
  void *to = values.mutable_data_ptr(), *by = scales.mutable_data_ptr();
  void* arguments[] = {&numbers, &to, &by, &one, &rows, &padded, &width};
  device::cuda::launch(source, function, {static_cast<unsigned>(align_up(padded, tile_rows))},
                       {threads}, 0, device::current_stream(x.device()), arguments);
  if (four) return {values, scales.view(at::kFloat8_e4m3fn)};
  return {values.view(at::kFloat8_e4m3fn), scales.view(at::kFloat8_e8m0fnu)};
}

}  // namespace distorch::quant::cuda
