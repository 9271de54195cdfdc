#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/weights/manifest.h"

namespace distorch::nn {

/// Rows of a table: ids [...] int64 -> [..., width]. Declares `weight` [count, width].
class Embedding {
 public:
  Embedding(const weights::Scope& scope, std::int64_t count, std::int64_t width);
  at::Tensor operator()(const at::Tensor& ids) const;
  /// Rows 0 .. count-1: [count, width].
  at::Tensor first(std::int64_t count) const;
  /// x [..., width] times every row: [..., count]. How models that share the table score tokens.
  at::Tensor products(const at::Tensor& x) const;

 private:
  weights::Weight weight_;
};

/// Sinusoidal embedding of timesteps [B] float32 (fractions allowed) -> [B, width] float32, cosines
/// in front of sines, frequencies from 1 down to 1/10000; a zero at the end where width is odd.
/// Source: Ho et al. 2020 (DDPM), in the order that Stable Diffusion uses.
at::Tensor timestep_embedding(const at::Tensor& timesteps, std::int64_t width);

}  // namespace distorch::nn
