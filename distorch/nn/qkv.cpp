#include "distorch/nn/qkv.h"

namespace distorch::nn {

using at::Tensor;

QkvProjection::QkvProjection(const weights::Scope& s, const QkvOptions& options)
    : options_(options) {
  const auto q = options.heads * options.head_width, kv = options.kv_heads * options.head_width;
  if (!options.split) {
    fused_.emplace(s / "qkv", options.in, q + 2 * kv, options.bias);
    return;
  }
  q_.emplace(s / "q", options.in, q, options.bias);
  k_.emplace(s / "k", options.in, kv, options.bias);
  v_.emplace(s / "v", options.in, kv, options.bias);
}

Tensor QkvProjection::heads(const Tensor& y, std::int64_t count) const {
  return y.unflatten(-1, {count, options_.head_width});
}

Qkv QkvProjection::operator()(const Tensor& x) const {
  if (!fused_)
    return {heads((*q_)(x), options_.heads), heads((*k_)(x), options_.kv_heads),
            heads((*v_)(x), options_.kv_heads)};
  auto all = heads((*fused_)(x), options_.heads + 2 * options_.kv_heads);
  return {all.narrow(2, 0, options_.heads), all.narrow(2, options_.heads, options_.kv_heads),
          all.narrow(2, options_.heads + options_.kv_heads, options_.kv_heads)};
}

}  // namespace distorch::nn
