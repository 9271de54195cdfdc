#include "distorch/nn/patch.h"

#include "distorch/nn/adapters/chain.h"

namespace distorch::nn {

at::Tensor patched(const weights::Weight& weight) {
  if (!weight.defined() || weight.adapters().empty()) return weight.dense();
  return Chain(weight).whole();
}

std::optional<at::Tensor> optional_value(const weights::Weight& weight) {
  if (!weight.defined()) return std::nullopt;
  return patched(weight);
}

}  // namespace distorch::nn
