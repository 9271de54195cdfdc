#include "distorch/nn/linear.h"

#include "distorch/nn/adapters/chain.h"
#include "distorch/nn/patch.h"
#include "distorch/quant/encoding.h"
#include "distorch/quant/fp8.h"

namespace distorch::nn {

Linear::Linear(const weights::Scope& scope, std::int64_t in, std::int64_t out, bool bias)
    : weight_(scope.weight("weight", {out, in})) {
  if (bias) bias_ = scope.weight("bias", {out});
}

at::Tensor Linear::operator()(const at::Tensor& x) const { return linear(x, weight_, bias_); }

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
