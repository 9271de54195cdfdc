#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::nn {

/// x · sigmoid(x). The second form overwrites its argument: only for tensors that the caller made.
at::Tensor silu(const at::Tensor& x);
at::Tensor silu_over(at::Tensor x);

/// x · Φ(x), exact (erf).
at::Tensor gelu(const at::Tensor& x);

/// x · sigmoid(1.702 x): the approximation that OpenAI's CLIP was trained with.
at::Tensor quick_gelu(const at::Tensor& x);

/// Gated GELU: x [..., 2·n] -> first half · gelu(second half), [..., n] contiguous.
at::Tensor geglu(const at::Tensor& x);

/// GELU by its tanh approximation, over its argument: only for tensors that the caller made.
at::Tensor gelu_tanh_over(at::Tensor x);

/// `left` [B, L, K] and what an MLP makes of x [B, L, N], in one tensor [B, L, K + N]: GELU by its
/// tanh approximation or, gated, silu(first half) · second half of x [B, L, 2·N]. `left` may be
/// undefined.
at::Tensor activated_behind(const at::Tensor& left, const at::Tensor& x, bool gated);

/// silu(gate) · x, over the gate: only for a gate that the caller made.
at::Tensor swiglu_over(at::Tensor gate, const at::Tensor& x);

}  // namespace distorch::nn
