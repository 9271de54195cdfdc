#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "distorch/device/cuda/nvrtc.h"

/// Kernels of our own for numbers of 8 bits on CUDA devices. Undefined where NVRTC or the driver is
/// missing, or where the tensors' types or places are not what the kernels read.
namespace distorch::quant::cuda {

/// As quant::decode_float8().
at::Tensor decode_float8(const at::Tensor& values, const at::Tensor& scale, bool wide,
                         at::ScalarType dtype);

/// As quant::to_float8(): {float8_e4m3fn of x's shape, float32 [1]}.
std::pair<at::Tensor, at::Tensor> to_float8(const at::Tensor& x, const at::Tensor& scale);

/// A kernel and what it is compiled with beside device::cuda::define_of(dtype): for tests.
struct Float8Source {
  const device::cuda::KernelSource* source = nullptr;
  std::string defines;
};
std::vector<Float8Source> float8_sources();

}  // namespace distorch::quant::cuda
