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

/// RMS norm and rotary position of the heads x [B, L, H, D], D even where they are turned:
/// distorch::heads. Computes in float32 and rounds once; x may be a slice of a larger tensor. Result
/// contiguous.
at::Tensor prepared_heads(const at::Tensor& x, const HeadOptions& options);

/// RMS norm over the last dimension of x [..., width], `weight` [width] or undefined.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace distorch::device
