#include "distorch/nn/attention.h"

namespace distorch::nn {
namespace {

// [B, L, H·D] -> [B, H, L, D] without a copy.
at::Tensor split_heads(const at::Tensor& x, std::int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options) {
  std::optional<at::Tensor> mask;
  if (options.mask.defined()) mask = options.mask;
  auto out = at::scaled_dot_product_attention(split_heads(q, options.heads), split_heads(k, options.heads),
                                              split_heads(v, options.heads), mask, 0.0, options.causal);
  return out.transpose(1, 2).reshape(q.sizes());  // a view where the kernel writes positions before heads
}

}  // namespace distorch::nn
