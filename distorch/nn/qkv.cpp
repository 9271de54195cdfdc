#include "distorch/nn/qkv.h"

#include "distorch/device/token_ops.h"

namespace distorch::nn {

using at::Tensor;

Qkv room_for_heads(const Tensor& x, std::int64_t tokens, std::int64_t heads) {
  const auto room = [&] {
    return at::empty({x.size(0), tokens, heads, x.size(-1) / heads}, x.options());
  };
  return {room(), room(), room()};
}

Qkv part_of(const Qkv& all, std::int64_t first, std::int64_t count) {
  return {all.q.narrow(1, first, count), all.k.narrow(1, first, count),
          all.v.narrow(1, first, count)};
}

void copy_heads(const Tensor& to, const Tensor& from) {
  device::prepare_heads_into(to, from, {.norm = false});
}

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
