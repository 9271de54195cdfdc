#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/device/token_ops.h"

namespace distorch::device::cuda {

/// As the operators of token_ops.h, by kernels of our own. Undefined where NVRTC or the driver is
/// missing, or where the tensors' types or strides are not what the kernels read.
at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                          double eps);
at::Tensor weighted_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         double eps);
at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y);
at::Tensor activated(const at::Tensor& left, const at::Tensor& x, Activation activation);
/// False where it cannot.
bool heads(const at::Tensor& y, const at::Tensor& x, const at::Tensor& weight,
           const at::Tensor& cos, const at::Tensor& sin, double eps, bool norm, bool halves);

}  // namespace distorch::device::cuda
