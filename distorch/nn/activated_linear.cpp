#include "distorch/nn/activated_linear.h"

#include <algorithm>
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
  const auto inputs = x.reshape({-1, x.size(-1)});
  const auto parts = std::max<std::int64_t>(1, (inputs.size(0) + kManyRows - 1) / kManyRows);
  if (parts == 1 && !left.defined())
    return at::linear(before.rows_gelu_tanh(x, first, width), weight, bias);
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  auto y = left.defined() ? at::linear(left, weight.narrow(1, 0, beside), bias)
                          : at::empty(sizes, x.options());
  const auto rows = y.view({-1, y.size(-1)});
  const auto matrix = weight.narrow(1, beside, width).t();
  const auto step = (inputs.size(0) + parts - 1) / parts;
  for (std::int64_t begin = 0; begin < inputs.size(0); begin += step) {
    const auto count = std::min(step, inputs.size(0) - begin);
    const auto wide = before.rows_gelu_tanh(inputs.narrow(0, begin, count), first, width);
    auto sums = rows.narrow(0, begin, count);
    if (left.defined())
      sums.addmm_(wide, matrix);
    else if (bias)
      at::addmm_out(sums, *bias, wide, matrix);
    else
      at::mm_out(sums, wide, matrix);
  }
  return y;
}

}  // namespace distorch::nn
