#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// Normalises the channels of x [B, C, ...] by what training saw of them. Declares `weight`, `bias`,
/// `running_mean` and `running_var` [C].
class BatchNorm {
 public:
  BatchNorm(const weights::Scope& scope, std::int64_t channels, double eps = 1e-5);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  double eps_;
  weights::Weight weight_, bias_, mean_, variance_;
};

}  // namespace distorch::nn
