#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::device {

struct GroupNormOptions {
  std::int64_t groups = 32;
  double eps = 1e-5;
  bool silu = false;  // applies SiLU to the result
};

/// Group normalisation of images x [N, C, H, W] as accelerators do it without rearranging them:
/// channels-last in and out, accumulated in float32, rounded once; `weight`, `bias` [C] of x's
/// dtype. The same bits for the same x. Undefined where this kind of device has nothing of its own
/// for these tensors: torch's is to be used.
at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options);

}  // namespace distorch::device
