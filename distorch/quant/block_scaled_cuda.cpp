#include "distorch/quant/block_scaled_cuda.h"

#include <ATen/ATen.h>

#include "distorch/device/streams.h"
#include "distorch/quant/cuda_sources.h"

namespace distorch::quant::cuda {

using device::cuda::define_of;

at::Tensor decode_scaled_blocks(const at::Tensor& values, const at::Tensor& scales,
                                const at::Tensor& whole, std::int64_t start, at::ScalarType dtype) {
  constexpr unsigned threads = 256;
  const bool four = whole.defined();
  const auto rows = values.size(0), width = values.size(1) * (four ? 2 : 1);
  const auto& source = four ? decode_four_source() : decode_eight_source();
  const char* kind = define_of(dtype);
  auto from = values.contiguous(), by = scales.contiguous();
  if (!kind || rows == 0 || width == 0 || width % 16 != 0) return {};
  if (reinterpret_cast<std::uintptr_t>(from.const_data_ptr()) % 8 != 0) return {};
  auto* function = device::cuda::kernel(values.device().index(), source, kind);
  if (!function) return {};
  auto y = at::empty({rows, width}, values.options().dtype(dtype));
  auto all = four ? whole.to(at::kFloat) : whole;
  const void *numbers = from.const_data_ptr(), *factors = by.const_data_ptr(),
             *one = four ? all.const_data_ptr() : nullptr;
  void* to = y.mutable_data_ptr();
  int bytes = static_cast<int>(values.size(1)), first = static_cast<int>(start);
  void* arguments[] = {&numbers, &factors, &one, &to, &bytes, &first};
  device::cuda::launch(source, function, {static_cast<unsigned>(rows)}, {threads}, 0,
                       device::current_stream(values.device()), arguments);
  return y;
}

}  // namespace distorch::quant::cuda
