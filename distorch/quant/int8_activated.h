#pragma once
#include "distorch/device/token_ops.h"
#include "distorch/quant/int8.h"

namespace distorch::quant {

/// int8_linear() of device::activated(left, x, activation), what is between them rounded to x's dtype:
/// `left` [B, L, K] or undefined, x [B, L, N or 2·N] -> [B, L, out]. Not for GeGlu, which no layer of
/// whole numbers has. distorch::int8_linear_activated:
/// on CUDA the inputs become whole numbers in one pass, without a tensor between.
at::Tensor int8_linear_activated(const at::Tensor& left, const at::Tensor& x,
                                 device::Activation activation, const WholeNumbers& weight,
                                 const at::Tensor& bias);

}  // namespace distorch::quant
