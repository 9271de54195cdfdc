#include "distorch/nn/linear.h"

#include "distorch/device/token_ops.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/adapters/chain.h"
#include "distorch/nn/patch.h"
#include "distorch/quant/encoding.h"
#include "distorch/quant/fp8.h"

namespace distorch::nn {

namespace {

at::Tensor bias_rows(const weights::Weight& bias, std::int64_t first, std::int64_t count) {
  const auto all = optional_value(bias);
  return all ? all->narrow(0, first, count) : at::Tensor();
}

}  // namespace

Linear::Linear(const weights::Scope& scope, std::int64_t in, std::int64_t out, bool bias)
    : weight_(scope.weight("weight", {out, in})) {
  if (bias) bias_ = scope.weight("bias", {out});
}

at::Tensor Linear::operator()(const at::Tensor& x) const { return linear(x, weight_, bias_); }

at::Tensor Linear::gelu_tanh(const at::Tensor& x) const {
  return is_plain() ? rows_gelu_tanh(x, 0, weight_.shape()[0]) : gelu_tanh_over((*this)(x));
}

bool Linear::is_plain() const { return nn::is_plain(weight_); }

at::Tensor Linear::rows(const at::Tensor& x, std::int64_t first, std::int64_t count) const {
  const auto bias = bias_rows(bias_, first, count);
  return at::linear(x, weight_.rows(first, count),
                    bias.defined() ? std::optional(bias) : std::nullopt);
}

at::Tensor Linear::rows_gelu_tanh(const at::Tensor& x, std::int64_t first,
                                  std::int64_t count) const {
  return device::linear_gelu(x, weight_.rows(first, count), bias_rows(bias_, first, count));
}

bool is_plain(const weights::Weight& weight) {
  return weight.adapters().empty() && !weight.packed() && !weight.for_fast_product();
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
