#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// y = x · Wᵀ + b on the last dimension: x [..., in] -> [..., out].
/// Declares `weight` [out, in] and, with bias, `bias` [out]. Adapters are applied
/// while it runs (adapters/chain.h), so that the weight itself is never copied.
class Linear {
 public:
  Linear(const weights::Scope& scope, std::int64_t in, std::int64_t out, bool bias = true);
  at::Tensor operator()(const at::Tensor& x) const;
  /// The type that this layer computes in, known while its block runs.
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  weights::Weight weight_, bias_;
};

/// What Linear computes, for weights declared elsewhere (a 1x1 convolution counts as [out, in]).
at::Tensor linear(const at::Tensor& x, const weights::Weight& weight, const weights::Weight& bias);

}  // namespace distorch::nn
