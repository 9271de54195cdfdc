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

}  // namespace distorch::nn
