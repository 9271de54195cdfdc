#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/device/cuda/nvrtc.h"

namespace distorch::quant {

/// As unpack_bf16() in bf16, by a kernel of our own that reads the parts once and writes the numbers
/// once. Undefined where NVRTC or the driver is missing. The parts' shapes have been checked.
at::Tensor unpack_bf16_on_cuda(const at::Tensor& planes, const at::Tensor& codes,
                               const at::Tensor& exponents);

/// Its source, compiled with -DEIGHTS=1 for rows that are read by eights and with 0 for others.
const device::cuda::KernelSource& bf16_planes_source();

}  // namespace distorch::quant
