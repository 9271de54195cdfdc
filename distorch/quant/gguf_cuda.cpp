#include "distorch/quant/gguf_cuda.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "distorch/device/cuda/numbers.h"
#include "distorch/device/streams.h"
#include "distorch/quant/gguf_blocks_text.h"

namespace distorch::quant {

namespace {

// Each thread decodes twice eight numbers, which neighbours write side by side: what it reads for
// both is on its way at once. A block's bytes are read by the threads that share it, through
// the cache.
constexpr const char* kDecode = R"(
#ifdef IN_HALF
// Two numbers of 16 bits in a word, each operation rounded by itself.
__device__ __forceinline__ unsigned times(unsigned a, unsigned b) {
  unsigned c;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
  return c;
}
__device__ __forceinline__ unsigned minus(unsigned a, unsigned b) {
  unsigned c;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
  return c;
}
__device__ __forceinline__ unsigned twice(float f) {
  unsigned short h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h * 0x10001u;
}
__device__ __forceinline__ float half_number(unsigned bits) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"((unsigned short)bits));
  return f;
}
__device__ __forceinline__ void put_products(Number* to, const unsigned* q, float scale, float less) {
  const unsigned by = twice(scale), off = twice(less);
  unsigned pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    // 1024 and a byte, which is the number and 128.
    const unsigned whole = __byte_perm(q[i / 2] ^ 0x80808080u, 0x64646464u, i % 2 ? 0x4342 : 0x4140);
    const unsigned product = times(minus(whole, 0x64806480u), by);
    pairs[i] = TYPE::has_minus ? minus(product, off) : product;
  }
#if KIND == 1
  *(uint4*)to = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
#else
  float result[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) result[i] = half_number(pairs[i / 2] >> i % 2 * 16);
  put_eight(to, result);
#endif
}
#else
__device__ __forceinline__ void put_products(Number* to, const unsigned* q, float scale, float less) {
  float result[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float product = __fmul_rn(scale, (float)(signed char)(q[i / 4] >> i % 4 * 8));
    result[i] = TYPE::has_minus ? __fsub_rn(product, less) : product;
  }
  put_eight(to, result);
}
#endif
extern "C" __global__ void decode_blocks(const unsigned char* __restrict__ blocks,
                                         Number* __restrict__ numbers,
                                         const signed char* __restrict__ grid, long long eights) {
  constexpr int runs = 2;
  constexpr unsigned each = TYPE::block / 8;
  const long long first = (long long)blockIdx.x * (runs * blockDim.x) + threadIdx.x;
  unsigned q[runs][2];
  float scale[runs], less[runs];
#pragma unroll
  for (int r = 0; r < runs; ++r) {
    const unsigned long long at = first + r * blockDim.x;
    less[r] = 0;
    if (at < eights)
      scale[r] = TYPE::part<8>(blocks + at / each * TYPE::bytes, (int)(at % each) * 8, grid,
                               (signed char*)q[r], less[r]);
  }
#pragma unroll
  for (int r = 0; r < runs; ++r) {
    const unsigned long long at = first + r * blockDim.x;
    if (at < eights) put_products(numbers + 8 * at, q[r], scale[r], less[r]);
  }
}
)";

const std::string& kernel_text() {
  static const auto& text =
      *new std::string(std::string(device::cuda::kNumbers) + kBlocksText + kDecode);
  return text;
}

}  // namespace

const device::cuda::KernelSource& block_kernel() {
  static const device::cuda::KernelSource source{"decode_blocks", kernel_text().c_str()};
  return source;
}

std::string block_kernel_options(const formats::BlockType& type, at::ScalarType dtype,
                                 bool in_half) {
  return fmt::format("{} -DTYPE={}{} --device-as-default-execution-space",
                     device::cuda::define_of(dtype), type.name, in_half ? " -DIN_HALF" : "");
}

at::Tensor decode_on_cuda(const at::Tensor& given, const formats::BlockType& type,
                          at::ScalarType dtype, const at::Tensor& grid, bool in_half) {
  constexpr std::int64_t together = 8, threads = 256, runs = 2;
  if (!device::cuda::define_of(dtype)) return {};
  auto* function = device::cuda::kernel(given.device().index(), block_kernel(),
                                        block_kernel_options(type, dtype, in_half));
  if (!function) return {};
  // Blocks are read as words (gguf_blocks.inc). Rows of a matrix of small blocks may begin anywhere.
  const bool aligned = reinterpret_cast<std::uintptr_t>(given.const_data_ptr()) % 16 == 0;
  const auto blocks = aligned ? given : given.clone();
  const auto numbers_count = blocks.numel() / type.bytes * type.elements;
  auto numbers = at::empty({numbers_count}, blocks.options().dtype(dtype));
  if (numbers_count == 0) return numbers;
  long long eights = numbers_count / together;
  const void* from = blocks.const_data_ptr();
  const void* points = grid.defined() ? grid.const_data_ptr() : nullptr;
  void* to = numbers.mutable_data_ptr();
  void* arguments[] = {&from, &to, &points, &eights};
  device::cuda::launch(block_kernel(), function,
                       {static_cast<unsigned>((eights + threads * runs - 1) / (threads * runs))},
                       {threads}, 0, device::current_stream(blocks.device()), arguments);
  return numbers;
}

}  // namespace distorch::quant
