#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// From so many rows on a product is long enough for any device to be taken in parts, which what lies
/// between two layers needs less memory with.
inline constexpr std::int64_t kManyRows = 8192;

/// Rows of a layer's weight, and of its bias where it has one.
struct LinearRows {
  at::Tensor weight, bias;
  at::Tensor operator()(const at::Tensor& x) const;
  at::Tensor gelu_tanh(const at::Tensor& x) const;
};

/// y = x · Wᵀ + b on the last dimension: x [..., in] -> [..., out].
/// Declares `weight` [out, in] and, with bias, `bias` [out]. Adapters are applied
/// while it runs (adapters/chain.h), so that the weight itself is never copied.
class Linear {
 public:
  Linear(const weights::Scope& scope, std::int64_t in, std::int64_t out, bool bias = true);
  at::Tensor operator()(const at::Tensor& x) const;
  /// GELU, by its tanh approximation, of operator()(x).
  at::Tensor gelu_tanh(const at::Tensor& x) const;
  /// Whether products with x are taken of numbers in its type, as they lie or decoded as a whole, and
  /// of nothing else: no adapters, no products of another type. On an accelerator the same wherever
  /// the weight rests. Known while the block runs.
  bool is_plain(const at::Tensor& x) const;
  /// Of a plain layer: rows `first` .. `first + count - 1` of its weight, decoded where they are
  /// packed.
  LinearRows rows(std::int64_t first, std::int64_t count) const;
  /// The type that this layer computes in, known while its block runs.
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  weights::Weight weight_, bias_;
};

/// See Linear::is_plain().
bool is_plain(const weights::Weight& weight, const at::Tensor& x);

/// What Linear computes, for weights declared elsewhere (a 1x1 convolution counts as [out, in]).
at::Tensor linear(const at::Tensor& x, const weights::Weight& weight, const weights::Weight& bias);

}  // namespace distorch::nn
