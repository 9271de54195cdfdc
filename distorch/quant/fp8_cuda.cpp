#include "distorch/quant/fp8_cuda.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "distorch/device/cuda/numbers.h"
#include "distorch/device/streams.h"

namespace distorch::quant::cuda {
namespace {

using device::cuda::define_of;
using device::cuda::KernelSource;

/// Numbers of 8 bits by way of float16, which holds them all: e5m2 (WIDE) is its upper half; e4m3
/// moved to its place has an exponent that is too small by 8, and NaN has to be said.
constexpr const char* kDecode = R"(
__device__ __forceinline__ float of_half(unsigned bits) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"((unsigned short)bits));
  return f;
}
__device__ __forceinline__ float of_byte(unsigned b) {
#if WIDE
  return of_half((b & 0xffu) << 8);
#else
  const float f = of_half((b & 0x80u) << 8 | (b & 0x7fu) << 7) * 256.0f;
  return (b & 0x7fu) == 0x7fu ? __uint_as_float(0x7fc00000u) : f;
#endif
}
__device__ __forceinline__ float2 of_two(unsigned two) {
#if !WIDE && __CUDA_ARCH__ >= 890
  unsigned halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"((unsigned short)two));
  return make_float2(of_half(halves), of_half(halves >> 16));
#else
  return make_float2(of_byte(two), of_byte(two >> 8));
#endif
}
// A thread has sixteen numbers of one row; width 0: one scale is for all.
extern "C" __global__ void decode_float8(const unsigned char* __restrict__ from,
                                         Number* __restrict__ to,
                                         const float* __restrict__ scales, long long total,
                                         int width) {
  const long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 16;
  if (at >= total) return;
  if (at + 16 > total || width % 16 != 0) {
    for (long long i = at; i < at + 16 && i < total; ++i) {
      const float factor = scales ? up(down(scales[width ? i / width : 0])) : 1.0f;
      to[i] = down(__fmul_rn(of_byte(from[i]), factor));
    }
    return;
  }
  const float factor = scales ? up(down(scales[width ? at / width : 0])) : 1.0f;
  const uint4 packed = *(const uint4*)(from + at);
  const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    Eight result;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 two = of_two(words[2 * half + j / 2] >> (16 * (j % 2)));
      result.v[2 * j] = down(__fmul_rn(two.x, factor));
      result.v[2 * j + 1] = down(__fmul_rn(two.y, factor));
    }
    *(Eight*)(to + at + 8 * half) = result;
  }
}
)";

/// Numbers as float8_e4m3fn: divided by a scale, kept within 448, rounded to even; NaN stays.
constexpr const char* kEncode = R"(
__device__ __forceinline__ unsigned to_two(float first, float second) {
#if __CUDA_ARCH__ >= 890
  unsigned short two;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two) : "f"(second), "f"(first));
  return two;
#else
  return to_e4m3(first) | to_e4m3(second) << 8;
#endif
}
__device__ __forceinline__ float scaled(Number x, float by) {
  return by == 1.0f ? up(x) : __fdiv_rn(up(x), by);
}
// A thread has sixteen numbers. The scale that was used is told, for the product that needs it.
extern "C" __global__ void to_float8(const Number* __restrict__ from,
                                     unsigned char* __restrict__ to,
                                     const float* __restrict__ scale, float* __restrict__ used,
                                     long long total) {
  const long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 16;
  const float by = scale ? *scale : 1.0f;
  if (at == 0) *used = by;
  if (at >= total) return;
  if (at + 16 > total) {
    for (long long i = at; i < total; ++i)
      to[i] = (unsigned char)to_two(scaled(from[i], by), 0.0f);
    return;
  }
  unsigned words[4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const Eight x = *(const Eight*)(from + at + 8 * half);
#pragma unroll
    for (int j = 0; j < 2; ++j)
      words[2 * half + j] = to_two(scaled(x.v[4 * j], by), scaled(x.v[4 * j + 1], by)) |
                            to_two(scaled(x.v[4 * j + 2], by), scaled(x.v[4 * j + 3], by)) << 16;
  }
  *(uint4*)(to + at) = make_uint4(words[0], words[1], words[2], words[3]);
}
)";

constexpr KernelSource decode_source{"decode_float8", kDecode, device::cuda::kNumbers};
constexpr KernelSource encode_source{"to_float8", kEncode, device::cuda::kNumbers};

std::string decode_defines(const std::string& kind, bool wide) {
  return fmt::format("{} -DWIDE={}", kind, wide ? 1 : 0);
}

bool lies_at(const at::Tensor& tensor, std::uintptr_t multiple) {
  return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % multiple == 0;
}

constexpr long long kTogether = 16;
constexpr unsigned kThreads = 256;

device::cuda::Extent blocks_for(long long total) {
  constexpr long long each = kTogether * kThreads;
  return {static_cast<unsigned>((total + each - 1) / each)};
}

}  // namespace

at::Tensor decode_float8(const at::Tensor& values, const at::Tensor& scale, bool wide,
                         at::ScalarType dtype) {
  const char* kind = define_of(dtype);
  const auto from = values.contiguous();
  long long total = from.numel();
  if (!kind || total == 0 || !lies_at(from, kTogether)) return {};
  auto* function =
      device::cuda::kernel(from.device().index(), decode_source, decode_defines(kind, wide));
  if (!function) return {};
  auto y = at::empty(from.sizes(), from.options().dtype(dtype));
  const auto by = scale.defined() ? scale.to(at::kFloat).contiguous() : scale;
  const bool each_row = by.defined() && by.numel() > 1;
  int width = each_row ? static_cast<int>(total / from.size(0)) : 0;
  const void *numbers = from.const_data_ptr(),
             *factors = by.defined() ? by.const_data_ptr() : nullptr;
  void* to = y.mutable_data_ptr();
  void* arguments[] = {&numbers, &to, &factors, &total, &width};
  device::cuda::launch(decode_source, function, blocks_for(total), {kThreads}, 0,
                       device::current_stream(from.device()), arguments);
  return y;
}

std::pair<at::Tensor, at::Tensor> to_float8(const at::Tensor& x, const at::Tensor& scale) {
  const char* kind = define_of(x.scalar_type());
  auto from = x.contiguous();
  if (!lies_at(from, kTogether)) from = from.clone();
  long long total = from.numel();
  if (!kind || total == 0) return {};
  auto* function = device::cuda::kernel(from.device().index(), encode_source, kind);
  if (!function) return {};
  auto y = at::empty(from.sizes(), from.options().dtype(at::kFloat8_e4m3fn));
  auto used = at::empty({1}, from.options().dtype(at::kFloat));
  const auto by = scale.defined() ? scale.to(at::kFloat).contiguous() : scale;
  const void *numbers = from.const_data_ptr(), *own = by.defined() ? by.const_data_ptr() : nullptr;
  void *to = y.mutable_data_ptr(), *told = used.mutable_data_ptr();
  void* arguments[] = {&numbers, &to, &own, &told, &total};
  device::cuda::launch(encode_source, function, blocks_for(total), {kThreads}, 0,
                       device::current_stream(from.device()), arguments);
  return {y, used};
}

std::vector<Float8Source> float8_sources() {
  return {{&decode_source, " -DWIDE=0"}, {&decode_source, " -DWIDE=1"}, {&encode_source, ""}};
}

}  // namespace distorch::quant::cuda
