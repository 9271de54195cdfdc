#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::device {

struct GroupNormOptions {
  std::int64_t groups = 32;
  double eps = 1e-5;
  bool silu = false;  // applies SiLU to the result
};

/// Group normalisation of x [N, C, ...] with `weight`, `bias` [C], accumulated in float32, the way
/// that is best where x lies: one kernel of our own for what has_group_norm_kernel() says, torch's
/// otherwise, of a contiguous x on accelerators. The same bits for the same x.
at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options);

/// Whether accelerators have a kernel of our own for these tensors, the operator
/// distorch::group_norm_silu: images [N, C, H, W] in channels-last memory, in and out, `weight` and
/// `bias` of x's dtype, rounded once. Not on the CPU, nor for a plan of it.
bool has_group_norm_kernel(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                           std::int64_t groups);

}  // namespace distorch::device
