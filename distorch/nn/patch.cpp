#include "distorch/nn/patch.h"

namespace distorch::nn {
namespace {

// up · mid · down, flattened to [out, in · kernel]. With mid the kernel sits in mid and down is
// 1x1: product[o, i, k] = Σ_ab up[o, a] mid[a, b, k] down[b, i].
at::Tensor low_rank_product(const weights::Patch& patch) {
  auto up = patch.up.flatten(1);
  auto down = patch.down.flatten(1);
  if (!patch.mid.defined()) return at::matmul(up, down);
  auto mid = patch.mid.flatten(2);                                                 // [a, b, k]
  auto inner = at::matmul(down.t(), mid.transpose(0, 1).flatten(1));               // [i, a·k]
  inner = inner.view({down.size(1), mid.size(0), -1}).transpose(0, 1).flatten(1);  // [a, i·k]
  return at::matmul(up, inner);
}

}  // namespace

at::Tensor patched(const weights::Weight& weight) {
  auto value = weight.dense();
  for (const auto& patch : weight.patches()) {
    auto change = patch.delta.defined() ? patch.delta : low_rank_product(patch);
    value = at::add(value, change.reshape(value.sizes()), patch.scale);
  }
  return value;
}

std::optional<at::Tensor> optional_value(const weights::Weight& weight) {
  if (!weight.defined()) return std::nullopt;
  return patched(weight);
}

}  // namespace distorch::nn
