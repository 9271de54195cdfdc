#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::quant {

/// As unpack_bf16() in bf16, by a kernel of our own that reads the parts once and writes the numbers
/// once. Undefined where NVRTC or the driver is missing. The parts' shapes have been checked.
at::Tensor unpack_bf16_on_cuda(const at::Tensor& planes, const at::Tensor& codes,
                               const at::Tensor& exponents);

}  // namespace distorch::quant
