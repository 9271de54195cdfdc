#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace distorch::nn {

struct AttentionOptions {
  std::int64_t heads = 1;
  bool causal = false;  // position i sees positions 0 .. i
  at::Tensor mask;      // added to the scores, broadcast to [B, heads, Lq, Lk]; undefined: none
};

/// Scaled dot-product attention of heads that lie side by side: q [B, Lq, H·D], k and v [B, Lk,
/// H·D] -> [B, Lq, H·D]. Scores are scaled by 1/√D; softmax accumulates in float32. Uses the
/// fastest kernel that ATen has for the device.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionOptions& options);

/// The same of heads that were prepared one by one: q [B, Lq, H, D], k and v [B, Lk, Hk, D] ->
/// [B, Lq, H·D]. Where there are fewer heads of keys than of queries, H / Hk neighbouring ones of the
/// queries share one. Strides are free as long as a head's numbers lie together.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const at::Tensor& mask = {}, bool causal = false);

}  // namespace distorch::nn
