#pragma once
#include "distorch/nn/linear.h"
#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// A Linear (linear.h; the same weights) that takes what activated_behind() makes of its input, or
/// gelu_tanh_over(): where the weight's products begin with inputs as whole numbers, these are made
/// of what comes before the activation in one pass.
class ActivatedLinear {
 public:
  ActivatedLinear(const weights::Scope& scope, std::int64_t in, std::int64_t out, bool bias = true);
  /// `left` [B, L, K] or undefined and x [B, L, N], gated [B, L, 2·N] -> [B, L, out]. Overwrites x:
  /// only for tensors that the caller made. Both are let go of as soon as they are not needed.
  at::Tensor operator()(at::Tensor left, at::Tensor x, bool gated) const;
  bool is_plain(const at::Tensor& x) const { return nn::is_plain(weight_, x); }
  /// Where both layers are plain: `left` [B, L, K] or undefined, and what GELU makes of rows `first`
  /// and later of a layer before on x -> [B, L, out]. Never joins the two; many tokens in parts.
  at::Tensor after(const Linear& before, std::int64_t first, const at::Tensor& x,
                   const at::Tensor& left) const;

 private:
  weights::Weight weight_, bias_;
};

/// An MLP: two layers with GELU, by its tanh approximation, between them. Many tokens pass it in parts
/// where both layers are plain, so that what lies between, the widest there is, never is as a whole.
at::Tensor gelu_mlp(const Linear& in, const ActivatedLinear& out, const at::Tensor& x);

}  // namespace distorch::nn
