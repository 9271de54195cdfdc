#include "distorch/nn/linear.h"

#include "distorch/nn/patch.h"
#include "distorch/quant/fp8.h"

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
  if (weight.adapters().empty())
    if (auto numbers = weight.for_fast_product())
      if (auto y = quant::fast_linear(x, *numbers, added.value_or(at::Tensor())); y.defined())
        return y;
  auto y = weight.packed() ? quant::linear(x, *weight.packed(), added.value_or(at::Tensor()))
                           : at::linear(x, matrix(weight.dense()), added);
  for (const auto& adapter : weight.adapters()) {
    auto scale = scale_of(adapter);
    auto part = [&](weights::Part which) { return part_of(adapter, which, x.scalar_type()); };
    if (auto value = part(weights::Part::Value); value.defined()) {
      y.add_(at::linear(x, value.reshape({y.size(-1), x.size(-1)})), scale);
      continue;
    }
    auto low = at::linear(x, matrix(part(weights::Part::Down)));
    if (auto mid = part(weights::Part::Mid); mid.defined()) low = at::linear(low, matrix(mid));
    y.add_(at::linear(low, matrix(part(weights::Part::Up))), scale);
  }
  return y;
}

}  // namespace distorch::nn
