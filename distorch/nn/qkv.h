#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/nn/linear.h"
#include "distorch/weights/manifest.h"

namespace distorch::nn {

struct QkvOptions {
  std::int64_t in = 0;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;  // heads of keys and of values
  std::int64_t head_width = 64;
  bool bias = true;
  /// Three matrices "q", "k" and "v" (files that keep them apart) in place of one, "qkv", with their
  /// rows one below the other.
  bool split = false;
};

/// What attention takes, head by head: q [B, L, heads, D], k and v [B, L, kv_heads, D].
struct Qkv {
  at::Tensor q, k, v;
};

/// Room for the queries, keys and values of `tokens` tokens of several kinds that attend together:
/// [B, tokens, heads, C / heads] each, for x [B, ..., C] of any kind.
Qkv room_for_heads(const at::Tensor& x, std::int64_t tokens, std::int64_t heads);
/// The part of `count` tokens from `first` on.
Qkv part_of(const Qkv& all, std::int64_t first, std::int64_t count);
/// Copies heads [B, L, H, D], which may be a slice of a product.
void copy_heads(const at::Tensor& to, const at::Tensor& from);

/// Queries, keys and values of the same tokens: x [B, L, in]. Declares `qkv.weight` or `q.weight`,
/// `k.weight` and `v.weight`, with `bias` each where options say so.
class QkvProjection {
 public:
  QkvProjection(const weights::Scope& scope, const QkvOptions& options);
  Qkv operator()(const at::Tensor& x) const;

 private:
  at::Tensor heads(const at::Tensor& y, std::int64_t count) const;

  QkvOptions options_;
  std::optional<Linear> fused_, q_, k_, v_;
};

}  // namespace distorch::nn
