#include "distorch/nn/activated_linear.h"

#include <utility>

#include "distorch/nn/activation.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/patch.h"
#include "distorch/quant/int8_activated.h"

namespace distorch::nn {

ActivatedLinear::ActivatedLinear(const weights::Scope& scope, std::int64_t in, std::int64_t out,
                                 bool bias)
    : weight_(scope.weight("weight", {out, in})) {
  if (bias) bias_ = scope.weight("bias", {out});
}

at::Tensor ActivatedLinear::operator()(at::Tensor left, at::Tensor x, bool gated) const {
  const auto* packed = weight_.adapters().empty() ? weight_.packed() : nullptr;
  if (packed && x.dim() == 3)
    if (auto numbers = quant::whole_numbers(*packed))
      return quant::int8_linear_activated(
          left, x, gated ? device::Activation::SwiGlu : device::Activation::GeluTanh, *numbers,
          optional_value(bias_).value_or(at::Tensor()));
  if (!left.defined() && !gated) return linear(gelu_tanh_over(std::move(x)), weight_, bias_);
  auto activated = activated_behind(left, x, gated);
  left.reset();
  x.reset();
  return linear(activated, weight_, bias_);
}

at::Tensor ActivatedLinear::after(const Linear& before, std::int64_t first, const at::Tensor& x,
                                  const at::Tensor& left) const {
  const auto weight = weight_.dense();
  const auto bias = optional_value(bias_);
  const auto beside = left.defined() ? left.size(-1) : 0, width = weight.size(1) - beside;
  const auto wide = before.rows_gelu_tanh(x, first, width);
  if (!left.defined()) return at::linear(wide, weight, bias);
  auto y = at::linear(left, weight.narrow(1, 0, beside), bias);
  y.view({-1, y.size(-1)}).addmm_(wide.view({-1, width}), weight.narrow(1, beside, width).t());
  return y;
}

}  // namespace distorch::nn
