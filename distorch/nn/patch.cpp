#include "distorch/nn/patch.h"

namespace distorch::nn {

using weights::Part;

namespace {

// up · mid · down, flattened to [out, in · kernel]. With mid the kernel sits in mid and down is
// 1x1: product[o, i, k] = Σ_ab up[o, a] mid[a, b, k] down[b, i].
at::Tensor low_rank_product(const weights::Adapter& adapter, at::ScalarType dtype) {
  auto up = part_of(adapter, Part::Up, dtype).flatten(1);
  auto down = part_of(adapter, Part::Down, dtype).flatten(1);
  auto mid = part_of(adapter, Part::Mid, dtype);
  if (!mid.defined()) return at::matmul(up, down);
  mid = mid.flatten(2);                                                            // [a, b, k]
  auto inner = at::matmul(down.t(), mid.transpose(0, 1).flatten(1));               // [i, a·k]
  inner = inner.view({down.size(1), mid.size(0), -1}).transpose(0, 1).flatten(1);  // [a, i·k]
  return at::matmul(up, inner);
}

}  // namespace

double scale_of(const weights::Adapter& adapter) {
  auto down = adapter.part(Part::Down);
  return adapter.strength *
         (adapter.alpha && down.defined() ? *adapter.alpha / static_cast<double>(down.size(0)) : 1);
}

at::Tensor part_of(const weights::Adapter& adapter, Part part, at::ScalarType dtype) {
  auto tensor = adapter.part(part);
  return tensor.defined() ? tensor.to(dtype) : tensor;
}

at::Tensor patched(const weights::Weight& weight) {
  auto value = weight.dense();
  for (const auto& adapter : weight.adapters()) {
    auto dtype = value.scalar_type();
    auto change = part_of(adapter, Part::Value, dtype);
    if (!change.defined()) change = low_rank_product(adapter, dtype);
    value = at::add(value, change.reshape(value.sizes()), scale_of(adapter));
  }
  return value;
}

std::optional<at::Tensor> optional_value(const weights::Weight& weight) {
  if (!weight.defined()) return std::nullopt;
  return patched(weight);
}

}  // namespace distorch::nn
