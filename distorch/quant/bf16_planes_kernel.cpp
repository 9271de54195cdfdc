#include "distorch/quant/bf16_planes_kernel.h"

#include <ATen/ATen.h>

#include "distorch/device/streams.h"
#include "distorch/quant/bf16_planes.h"

namespace distorch::quant {
namespace {

// A block of threads has a stretch of one row: 4096 numbers, eight at a time, of which a thread has
// up to four eights on the way at once. The row's table lies in shared memory: 16 entries of two
// bytes are in different banks. Numbers of the escape list are written once more at the end.
constexpr device::cuda::KernelSource unpack{"bf16_planes", R"(
__device__ unsigned number(unsigned plane, unsigned exponent) {
  return (plane & 0x80u) << 8 | exponent | (plane & 0x7fu);
}

extern "C" __global__ void bf16_planes(const unsigned char* __restrict__ planes,
                                       const unsigned char* __restrict__ codes,
                                       const unsigned char* __restrict__ exponents,
                                       unsigned short* __restrict__ out, long long numbers,
                                       long long code_bytes, long long exponent_bytes) {
  __shared__ unsigned short table[16];
  constexpr int stretch = 4096;
  const long long row = blockIdx.x, first = (long long)blockIdx.y * stretch;
  const long long last = first + stretch < numbers ? first + stretch : numbers;
  planes += row * numbers;
  codes += row * code_bytes;
  exponents += row * exponent_bytes;
  out += row * numbers;
  if (threadIdx.x < 16) table[threadIdx.x] = (unsigned short)(exponents[threadIdx.x] << 7);
  __syncthreads();
#if EIGHTS
  constexpr int at_once = 4;
  uint2 plane[at_once];
  unsigned code[at_once];
#pragma unroll
  for (int k = 0; k < at_once; ++k) {
    const long long i = first + 8 * (threadIdx.x + k * (long long)blockDim.x);
    if (i < last) {
      plane[k] = *(const uint2*)(planes + i);
      code[k] = *(const unsigned*)(codes + i / 2);
    }
  }
#pragma unroll
  for (int k = 0; k < at_once; ++k) {
    const long long i = first + 8 * (threadIdx.x + k * (long long)blockDim.x);
    if (i < last) {
      unsigned pair[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const unsigned two = (j < 2 ? plane[k].x : plane[k].y) >> 16 * (j % 2);
        const unsigned which = code[k] >> 8 * j;
        pair[j] = number(two, table[which & 15u]) | number(two >> 8, table[which >> 4 & 15u]) << 16;
      }
      *(uint4*)(out + i) = make_uint4(pair[0], pair[1], pair[2], pair[3]);
    }
  }
#else
  for (long long i = first + threadIdx.x; i < last; i += blockDim.x)
    out[i] = (unsigned short)number(planes[i], table[codes[i / 2] >> (i % 2 * 4) & 15]);
#endif
  __syncthreads();
  for (long long at = 16 + 4ll * threadIdx.x; at + 4 <= exponent_bytes; at += 4ll * blockDim.x) {
    const long long place = exponents[at + 1] | exponents[at + 2] << 8 | exponents[at + 3] << 16;
    if (place >= first && place < last)
      out[place] = (unsigned short)number(planes[place], (unsigned)exponents[at] << 7);
  }
}
)"};

bool lies_at(const at::Tensor& tensor, std::uintptr_t multiple) {
  return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % multiple == 0;
}

}  // namespace

const device::cuda::KernelSource& bf16_planes_source() { return unpack; }

at::Tensor unpack_bf16_on_cuda(const at::Tensor& planes, const at::Tensor& codes,
                               const at::Tensor& exponents) {
  constexpr long long stretch = 4096;
  constexpr unsigned threads = 128;
  const auto v = planes.contiguous(), c = codes.contiguous(), e = exponents.contiguous();
  auto out = at::empty(v.sizes(), v.options().dtype(at::kBFloat16));
  if (out.numel() == 0) return out;
  long long rows = v.size(0), numbers = v.numel() / rows, code_bytes = c.size(1);
  long long exponent_bytes = e.size(1);
  const bool eights =
      numbers % 8 == 0 && code_bytes % 4 == 0 && lies_at(v, 8) && lies_at(c, 4) && lies_at(out, 16);
  auto* function =
      device::cuda::kernel(v.device().index(), unpack, eights ? "-DEIGHTS=1" : "-DEIGHTS=0");
  if (!function) return {};
  const void *a = v.const_data_ptr(), *b = c.const_data_ptr(), *t = e.const_data_ptr();
  void* to = out.mutable_data_ptr();
  void* arguments[] = {&a, &b, &t, &to, &numbers, &code_bytes, &exponent_bytes};
  device::cuda::launch(
      unpack, function,
      {static_cast<unsigned>(rows), static_cast<unsigned>((numbers + stretch - 1) / stretch)},
      {threads}, 0, device::current_stream(v.device()), arguments);
  return out;
}

}  // namespace distorch::quant
