#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::device::cuda {

/// As the operators of token_ops.h, by kernels of our own. Undefined where NVRTC or the driver is
/// missing, or where the tensors' types or strides are not what the kernels read.
at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                          double eps);
at::Tensor heads(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& cos,
                 const at::Tensor& sin, double eps, bool norm, bool halves);

}  // namespace distorch::device::cuda
