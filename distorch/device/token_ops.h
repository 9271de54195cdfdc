#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::device {

/// Where tokens are, as the angles by which the pairs of a head's numbers are turned.
struct RopeTable {
  at::Tensor cos, sin;  // [1 or B, L, D/2] float32
  /// Which numbers of a head are a pair: neighbours (2i, 2i + 1) or, with `halves`, i and i + D/2.
  bool halves = false;
};

/// How the heads of queries and keys are prepared for attention.
struct HeadOptions {
  at::Tensor weight;  // [D], multiplied after the norm; undefined: none
  bool norm = true;   // divide by the root mean square over D
  double eps = 1e-6;
  const RopeTable* rope = nullptr;  // null: not turned
};

/// Layer norm without weights over the last dimension of x [B, L, C], then · (1 + scale) + shift,
/// which are [1 or B, 1 or L, C] in x's dtype. Computes in float32 and rounds once where a kernel of
/// our own is for x (accelerators, distorch::modulated_norm). Result contiguous.
at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale,
                          double eps);

/// Layer norm over the last dimension of x [..., C], then · weight + bias, which are [C]. Computes in
/// float32 and rounds once where a kernel of our own is for x (accelerators, distorch::weighted_norm).
/// Result contiguous.
at::Tensor weighted_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         double eps);

/// x + gate · y of x, y [B, L, C] and gate [1 or B, 1 or L, C]. Computes in float32 and rounds once
/// where a kernel of our own is for x (accelerators, distorch::gated_add).
at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y);

/// What an MLP does between its layers.
enum class Activation {
  GeluTanh,  // GELU by its tanh approximation: [..., N] -> [..., N]
  SwiGlu,    // silu(first half) · second half: [..., 2·N] -> [..., N]
  GeGlu      // first half · GELU(second half): [..., 2·N] -> [..., N]
};

/// What `x` [B, L, N or 2·N], which may be a slice of a larger tensor, becomes by the activation,
/// behind `left` [B, L, K]: [B, L, K + N] contiguous. Without `left` (undefined) the activation
/// alone, of any x [..., N or 2·N]. On accelerators one pass of a kernel of our own,
/// distorch::activated.
at::Tensor activated(const at::Tensor& left, const at::Tensor& x, Activation activation);

/// GELU by its tanh approximation of x · Wᵀ + b: x [..., in], weight [out, in], which may be rows of
/// a larger one, bias [out] or undefined -> [..., out] contiguous. In half types on accelerators the
/// product ends with it, before its result is rounded: distorch::linear_gelu.
at::Tensor linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// RMS norm and rotary position of the heads x [B, L, H, D], D even where they are turned:
/// distorch::heads_. Computes in float32 and rounds once; x may be a slice of a larger tensor.
/// Result contiguous.
at::Tensor prepared_heads(const at::Tensor& x, const HeadOptions& options);

/// The same into `to` [B, L, H, D], a slice of a tensor that heads of several kinds share: whole
/// heads that lie one behind the other in a token's row. Neither normalised nor turned they are
/// copied.
void prepare_heads_into(const at::Tensor& to, const at::Tensor& x, const HeadOptions& options);

/// RMS norm over the last dimension of x [..., width], `weight` [width] or undefined.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace distorch::device
