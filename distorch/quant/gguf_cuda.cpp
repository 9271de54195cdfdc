#include "distorch/quant/gguf_cuda.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "distorch/device/cuda/numbers.h"
#include "distorch/device/streams.h"
#include "distorch/quant/gguf_blocks_text.h"

namespace distorch::quant {

namespace {

// Each thread decodes eight numbers, which neighbours write side by side; a block's bytes are read by
// the threads that share it, through the cache.
constexpr const char* kDecode = R"(
#ifdef IN_HALF
__device__ float step(float f) {
  unsigned short h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}
#else
__device__ float step(float f) { return f; }
#endif
extern "C" __global__ void decode_blocks(const unsigned char* blocks, Number* numbers,
                                         const signed char* grid, long long eights) {
  const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= eights) return;
  constexpr int each = TYPE::block / 8;
  signed char q[8];
  float minus = 0;
  const float scale = step(TYPE::part<8>(blocks + at / each * TYPE::bytes, (int)(at % each) * 8, grid, q, minus));
  const float less = step(minus);
  float result[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float product = step(__fmul_rn(scale, (float)q[i]));
    result[i] = TYPE::has_minus ? step(__fsub_rn(product, less)) : product;
  }
  put_eight(numbers + 8 * at, result);
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

at::Tensor decode_on_cuda(const at::Tensor& blocks, const formats::BlockType& type,
                          at::ScalarType dtype, const at::Tensor& grid, bool in_half) {
  constexpr std::int64_t together = 8, threads = 256;
  if (!device::cuda::define_of(dtype)) return {};
  auto* function = device::cuda::kernel(blocks.device().index(), block_kernel(),
                                        block_kernel_options(type, dtype, in_half));
  if (!function) return {};
  const auto numbers_count = blocks.numel() / type.bytes * type.elements;
  auto numbers = at::empty({numbers_count}, blocks.options().dtype(dtype));
  if (numbers_count == 0) return numbers;
  long long eights = numbers_count / together;
  const void* from = blocks.const_data_ptr();
  const void* points = grid.defined() ? grid.const_data_ptr() : nullptr;
  void* to = numbers.mutable_data_ptr();
  void* arguments[] = {&from, &to, &points, &eights};
  device::cuda::launch(block_kernel(), function,
                       {static_cast<unsigned>((eights + threads - 1) / threads)}, {threads}, 0,
                       device::current_stream(blocks.device()), arguments);
  return numbers;
}

}  // namespace distorch::quant
