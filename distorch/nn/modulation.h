#pragma once
#include <ATen/core/Tensor.h>

/// How a diffusion transformer's blocks follow the noise level (adaptive layer norm).
/// Source: Peebles and Xie 2022 (DiT).
namespace distorch::nn {

/// Layer norm without weights of x [B, L, C], then * (1 + scale) + shift, which are
/// [1 or B, 1 or L, C]; float32 inside.
at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                          double eps = 1e-6);

/// x + gate * y, of new memory; gate [1 or B, 1 or L, C].
at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y);

}  // namespace distorch::nn
