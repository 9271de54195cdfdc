#include "distorch/nn/linear.h"

#include "distorch/nn/patch.h"

namespace distorch::nn {
namespace {

// LoRA files hold the factors of a linear layer with or without trailing 1x1 kernel dimensions.
at::Tensor matrix(const at::Tensor& factor) {
  return factor.dim() > 2 ? factor.flatten(1) : factor;
}

}  // namespace

Linear::Linear(const weights::Scope& scope, std::int64_t in, std::int64_t out, bool bias)
    : weight_(scope.weight("weight", {out, in})) {
  if (bias) bias_ = scope.weight("bias", {out});
}

at::Tensor Linear::operator()(const at::Tensor& x) const { return linear(x, weight_, bias_); }

at::Tensor linear(const at::Tensor& x, const weights::Weight& weight, const weights::Weight& bias) {
  auto added = optional_value(bias);
  auto y = weight.packed() ? quant::linear(x, *weight.packed(), added.value_or(at::Tensor()))
                           : at::linear(x, matrix(weight.dense()), added);
  for (const auto& patch : weight.patches()) {
    if (patch.delta.defined()) {
      y.add_(at::linear(x, patch.delta.reshape({y.size(-1), x.size(-1)})), patch.scale);
      continue;
    }
    auto low = at::linear(x, matrix(patch.down));
    if (patch.mid.defined()) low = at::linear(low, matrix(patch.mid));
    y.add_(at::linear(low, matrix(patch.up)), patch.scale);
  }
  return y;
}

}  // namespace distorch::nn
