#pragma once
#include <c10/core/ScalarType.h>

/// How kernels of our own read and write numbers of several types (KernelSource::before).
namespace distorch::device::cuda {

/// What says to kNumbers which type a kernel is compiled for; null for a type that it does not know.
inline const char* define_of(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::Float: return "-DKIND=0";
    case c10::ScalarType::Half: return "-DKIND=1";
    case c10::ScalarType::BFloat16: return "-DKIND=2";
    default: return nullptr;
  }
}

/// Number, up() to float and down() from it, rounded to even; Pair, Quad and Eight are read at once.
/// two() has two numbers of 16 bits in one word, the first in its lower half; put_eight() writes eight.
/// (Which NaN a NaN becomes is not the same in down() and two().)
/// to_e4m3() rounds to float8_e4m3fn in whole numbers: to even, not above 448, NaN stays.
/// row_sum() adds a number over the threads of a row, which lie side by side (x); `partial` has room
/// for one number a warp.
inline constexpr const char* kNumbers = R"(
#if KIND == 0
typedef float Number;
__device__ float up(float f) { return f; }
__device__ float down(float f) { return f; }
#elif KIND == 1
typedef unsigned short Number;
__device__ float up(unsigned short h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
__device__ unsigned short down(float f) { unsigned short h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h; }
#else
typedef unsigned short Number;
__device__ float up(unsigned short b) { return __uint_as_float((unsigned)b << 16); }
__device__ unsigned short down(float f) {
  const unsigned u = __float_as_uint(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return (unsigned short)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
#endif
struct alignas(2 * sizeof(Number)) Pair { Number x, y; };
struct alignas(4 * sizeof(Number)) Quad { Number v[4]; };
struct alignas(16) Eight { Number v[8]; };
#if KIND != 0
__device__ __forceinline__ unsigned two(float x, float y) {
#if __CUDA_ARCH__ >= 800
  unsigned both;
#if KIND == 1
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
#else
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(y), "f"(x));
#endif
  return both;
#else
  return down(x) | (unsigned)down(y) << 16;
#endif
}
#endif
__device__ __forceinline__ void put_eight(Number* to, const float* v) {
#if KIND == 0
  Eight out;
  for (int i = 0; i < 8; ++i) out.v[i] = v[i];
  *(Eight*)to = out;
#else
  *(uint4*)to = make_uint4(two(v[0], v[1]), two(v[2], v[3]), two(v[4], v[5]), two(v[6], v[7]));
#endif
}
__device__ float2 get(const Pair& p) { return make_float2(up(p.x), up(p.y)); }
__device__ Pair put(float x, float y) { return {down(x), down(y)}; }

__device__ __forceinline__ unsigned to_e4m3(float v) {
  const unsigned bits = __float_as_uint(v), size = bits & 0x7fffffffu;
  unsigned code;
  if (size > 0x7f800000u)
    code = 0x7f;
  else if (size >= 0x43e80000u)  // 464, half way to what would come after 448
    code = 0x7e;
  else if (size < 0x3c800000u)  // 2^-6, from where on down steps are equal
    code = __float2int_rn(__uint_as_float(size) * 512.0f);
  else
    code = (size + 0x7ffffu + (size >> 20 & 1u) - (120u << 23)) >> 20;
  return code | (bits >> 24 & 0x80u);
}

__device__ float row_sum(float value, float* partial) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  const int warps = blockDim.x / 32;
  if (warps == 1) return value;
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; ++i) sum += partial[i];
  __syncthreads();
  return sum;
}
)";

}  // namespace distorch::device::cuda
