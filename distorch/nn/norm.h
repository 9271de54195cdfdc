#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>

#include "distorch/nn/rope.h"
#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// Normalises over channel groups of x [B, C, ...]; C divisible by groups. Mean and variance
/// accumulate in float32. Declares `weight` [C] and `bias` [C].
class GroupNorm {
 public:
  GroupNorm(const weights::Scope& scope, std::int64_t channels, double eps = 1e-5,
            std::int64_t groups = 32);
  at::Tensor operator()(const at::Tensor& x) const { return normalized(x, false); }
  /// SiLU of that, in one pass where the device can (device/group_norm.h).
  at::Tensor silu(const at::Tensor& x) const { return normalized(x, true); }

 private:
  at::Tensor normalized(const at::Tensor& x, bool silu) const;

  std::int64_t groups_;
  double eps_;
  weights::Weight weight_, bias_;
};

/// Normalises over the last dimension of x [..., width]; accumulates in float32. Declares `weight`,
/// `bias` [width].
class LayerNorm {
 public:
  LayerNorm(const weights::Scope& scope, std::int64_t width, double eps = 1e-5);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  double eps_;
  weights::Weight weight_, bias_;
};

/// Divides by the root mean square over the last dimension of x [..., width], then multiplies by the
/// weight [width] declared as `name`; computes in float32. Source: Zhang and Sennrich 2019.
class RmsNorm {
 public:
  RmsNorm(const weights::Scope& scope, std::int64_t width, double eps = 1e-6,
          std::string_view name = "weight");
  at::Tensor operator()(const at::Tensor& x) const;
  /// The same of the heads x [B, L, H, width], turned by their positions (rope.h) in the same pass.
  at::Tensor heads(const at::Tensor& x, const RopeTable& rope) const;
  /// The same into `to`, the tokens' part of what several kinds of tokens attend with.
  void heads_into(const at::Tensor& to, const at::Tensor& x, const RopeTable& rope) const;

 private:
  double eps_;
  weights::Weight weight_;
};

/// Normalises over the last dimension, without weights.
at::Tensor layer_norm(const at::Tensor& x, double eps = 1e-6);

}  // namespace distorch::nn
