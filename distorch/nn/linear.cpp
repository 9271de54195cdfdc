#include "distorch/nn/linear.h"

#include "distorch/device/token_ops.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/adapters/chain.h"
#include "distorch/nn/patch.h"
#include "distorch/quant/encoding.h"
#include "distorch/quant/fp8.h"

namespace distorch::nn {

at::Tensor LinearRows::operator()(const at::Tensor& x) const {
  return at::linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor LinearRows::gelu_tanh(const at::Tensor& x) const {
  return device::linear_gelu(x, weight, bias);
}

Linear::Linear(const weights::Scope& scope, std::int64_t in, std::int64_t out, bool bias)
    : weight_(scope.weight("weight", {out, in})) {
  if (bias) bias_ = scope.weight("bias", {out});
}

at::Tensor Linear::operator()(const at::Tensor& x) const { return linear(x, weight_, bias_); }

at::Tensor Linear::gelu_tanh(const at::Tensor& x) const {
  if (!is_plain(x)) return gelu_tanh_over((*this)(x));
  return rows(0, weight_.shape()[0]).gelu_tanh(x);
}

bool Linear::is_plain(const at::Tensor& x) const { return nn::is_plain(weight_, x); }

LinearRows Linear::rows(std::int64_t first, std::int64_t count) const {
  const auto bias = optional_value(bias_);
  return {weight_.rows(first, count), bias ? bias->narrow(0, first, count) : at::Tensor()};
}

bool is_plain(const weights::Weight& weight, const at::Tensor& x) {
  if (!weight.adapters().empty() || weight.is_fast() || x.scalar_type() != weight.dtype())
    return false;
  const auto* packed = weight.packed();
  if (!packed) return true;
  // A processor decodes what is packed by rows that its caches hold.
  const auto device = quant::stood_for(packed->device());
  return !device.is_cpu() && !packed->encoding->rests_packed_for(packed->device());
}

at::Tensor linear(const at::Tensor& x, const weights::Weight& weight, const weights::Weight& bias) {
  LinearProducts products;
  auto added = optional_value(bias);
  if (!weight.adapters().empty()) return Chain(weight).product(x, products, added);
  if (const auto* packed = weight.packed())
    if (auto y = packed->encoding->product(x, *packed, added.value_or(at::Tensor())); y.defined())
      return y;
  if (auto numbers = weight.for_fast_product())
    if (auto y = quant::fast_linear(x, *numbers, added.value_or(at::Tensor())); y.defined())
      return y;
  return products.with(x, weight, added);
}

}  // namespace distorch::nn
