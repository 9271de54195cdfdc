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
  const auto beside = left.defined() ? left.size(-1) : 0, width = weight_.shape()[1] - beside;
  const auto inputs = x.reshape({-1, x.size(-1)});
  const auto count = inputs.size(0), parts = (count + kManyRows - 1) / kManyRows;
  // What is decoded of the layer before is let go of before this one's weight is.
  at::Tensor all;
  if (parts <= 1) all = before.rows(first, width).gelu_tanh(inputs);
  const auto weight = weight_.dense();
  const auto bias = optional_value(bias_);
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  if (parts <= 1 && !left.defined()) return at::linear(all, weight, bias).view(sizes);
  auto y = left.defined() ? at::linear(left, weight.narrow(1, 0, beside), bias)
                          : at::empty(sizes, x.options());
  const auto matrix = weight.narrow(1, beside, width).t();
  auto add = [&](at::Tensor sums, const at::Tensor& wide) {
    if (left.defined())
      sums.addmm_(wide, matrix);
    else if (bias)
      at::addmm_out(sums, *bias, wide, matrix);
    else
      at::mm_out(sums, wide, matrix);
  };
  const auto rows = y.view({count, y.size(-1)});
  if (parts <= 1) {
    add(rows, all);
    return y;
  }
  const auto step = (count + parts - 1) / parts;
  const auto layer = before.rows(first, width);
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const auto some = std::min(step, count - begin);
    add(rows.narrow(0, begin, some), layer.gelu_tanh(inputs.narrow(0, begin, some)));
  }
  return y;
}

at::Tensor gelu_mlp(const Linear& in, const ActivatedLinear& out, const at::Tensor& x) {
  if (in.is_plain(x) && out.is_plain(x)) return out.after(in, 0, x, {});
  return out({}, in(x), false);
}

}  // namespace distorch::nn
