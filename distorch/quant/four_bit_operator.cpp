#include <ATen/ATen.h>

#include <array>

#include "distorch/base/error.h"
#include "distorch/device/cuda/numbers.h"
#include "distorch/device/cuda/nvrtc.h"
#include "distorch/device/operators.h"
#include "distorch/device/parallel.h"
#include "distorch/device/streams.h"
#include "distorch/quant/four_bit.h"

namespace distorch::quant {
namespace {

using at::Tensor;

void check(const Tensor& codes, const Tensor& map, const Tensor& absmax, std::int64_t block) {
  const bool right = codes.scalar_type() == at::kByte && map.scalar_type() == at::kFloat &&
                     absmax.scalar_type() == at::kFloat && codes.dim() == 1 && map.numel() == 16 &&
                     codes.is_contiguous() && map.is_contiguous() && absmax.is_contiguous() &&
                     block > 1 && block % 2 == 0 && absmax.numel() * block >= 2 * codes.numel();
  if (!right)
    throw Error(ErrorKind::Format, "four_bit",
                "codes (U8), a table of 16 numbers and a magnitude a block do not fit each other");
}

Tensor empty_for(const Tensor& codes, at::ScalarType dtype) {
  return at::empty({2 * codes.numel()}, codes.options().dtype(dtype));
}

/// A block has 16 numbers in all: they are made once, in the type that is asked for.
template <class Number>
void unpack(const Tensor& codes, const Tensor& map, const Tensor& absmax, std::int64_t block,
            Number* to) {
  const auto* from = codes.const_data_ptr<std::uint8_t>();
  const auto* table = map.const_data_ptr<float>();
  const auto* magnitude = absmax.const_data_ptr<float>();
  const auto bytes = codes.numel(), half = block / 2;
  constexpr std::int64_t blocks_at_least = 256;
  device::parallel_for(0, (bytes + half - 1) / half, blocks_at_least,
                       [&](std::int64_t first, std::int64_t last) {
                         for (auto b = first; b < last; ++b) {
                           std::array<Number, 16> numbers;
                           for (int code = 0; code < 16; ++code)
                             numbers[code] = static_cast<Number>(table[code] * magnitude[b]);
                           const auto end = std::min(bytes, (b + 1) * half);
                           for (auto i = b * half; i < end; ++i) {
                             to[2 * i] = numbers[from[i] >> 4];
                             to[2 * i + 1] = numbers[from[i] & 15];
                           }
                         }
                       });
}

Tensor on_cpu(const Tensor& codes, const Tensor& map, const Tensor& absmax, std::int64_t block,
              at::ScalarType dtype) {
  check(codes, map, absmax, block);
  auto out = empty_for(codes, dtype);
  if (dtype == at::kFloat)
    unpack(codes, map, absmax, block, out.mutable_data_ptr<float>());
  else if (dtype == at::kHalf)
    unpack(codes, map, absmax, block, out.mutable_data_ptr<at::Half>());
  else
    unpack(codes, map, absmax, block, out.mutable_data_ptr<at::BFloat16>());
  return out;
}

// A thread has eight numbers: four bytes in, sixteen (or thirty-two) out. A block of numbers is a
// multiple of eight here, so that one magnitude is for all.
constexpr device::cuda::KernelSource kernel_source{"four_bit", R"(
extern "C" __global__ void four_bit(const unsigned* __restrict__ codes,
                                    const float* __restrict__ map,
                                    const float* __restrict__ absmax, Number* __restrict__ out,
                                    long long eights, long long block) {
  __shared__ float table[16];
  if (threadIdx.x < 16) table[threadIdx.x] = map[threadIdx.x];
  __syncthreads();
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= eights) return;
  const unsigned four = codes[i];
  const float magnitude = absmax[8 * i / block];
  Quad low, high;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const unsigned byte = four >> 8 * k;
    Quad& to = k < 2 ? low : high;
    to.v[2 * (k % 2)] = down(__fmul_rn(table[byte >> 4 & 15u], magnitude));
    to.v[2 * (k % 2) + 1] = down(__fmul_rn(table[byte & 15u], magnitude));
  }
  ((Quad*)out)[2 * i] = low;
  ((Quad*)out)[2 * i + 1] = high;
}
)",
                                                   device::cuda::kNumbers};

Tensor by_torch(const Tensor& codes, const Tensor& map, const Tensor& absmax, std::int64_t block,
                at::ScalarType dtype) {
  auto code = at::stack({codes.bitwise_right_shift(4), codes.bitwise_and(15)}, -1).flatten();
  auto numbers = map.index_select(0, code.to(at::kInt));
  auto magnitude = absmax.repeat_interleave(block).narrow(0, 0, numbers.numel());
  return numbers.mul_(magnitude).to(dtype);
}

Tensor on_cuda(const Tensor& codes, const Tensor& map, const Tensor& absmax, std::int64_t block,
               at::ScalarType dtype) {
  check(codes, map, absmax, block);
  constexpr unsigned threads = 256;
  long long eights = codes.numel() / 4, numbers = block;
  const bool whole = codes.numel() % 4 == 0 && block % 8 == 0 && eights > 0 &&
                     reinterpret_cast<std::uintptr_t>(codes.const_data_ptr()) % 4 == 0;
  auto* function = whole ? device::cuda::kernel(codes.device().index(), kernel_source,
                                                device::cuda::define_of(dtype))
                         : nullptr;
  if (!function) return by_torch(codes, map, absmax, block, dtype);
  auto out = empty_for(codes, dtype);
  const void *from = codes.const_data_ptr(), *table = map.const_data_ptr(),
             *magnitudes = absmax.const_data_ptr();
  void* to = out.mutable_data_ptr();
  void* arguments[] = {&from, &table, &magnitudes, &to, &eights, &numbers};
  device::cuda::launch(kernel_source, function,
                       {static_cast<unsigned>((eights + threads - 1) / threads)}, {threads}, 0,
                       device::current_stream(codes.device()), arguments);
  return out;
}

Tensor shape_only(const Tensor& codes, const Tensor&, const Tensor&, std::int64_t,
                  at::ScalarType dtype) {
  return empty_for(codes, dtype);
}

}  // namespace

const device::cuda::KernelSource& four_bit_source() { return kernel_source; }

Tensor unpack_four_bit(const Tensor& codes, const Tensor& map, const Tensor& absmax,
                       std::int64_t block, at::ScalarType dtype) {
  static const auto op =
      device::define({.schema = "four_bit(Tensor codes, Tensor map, Tensor absmax, int block, "
                                "ScalarType dtype) -> Tensor",
                      .cpu = torch::CppFunction(&on_cpu),
                      .cuda = torch::CppFunction(&on_cuda),
                      .meta = torch::CppFunction(&shape_only)})
          .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, std::int64_t,
                        at::ScalarType)>();
  return op.call(codes, map, absmax, block, dtype);
}

}  // namespace distorch::quant
