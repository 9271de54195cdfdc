#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Numbers of 8 bits with one scale for the whole tensor (or one a row): weight = values · scale.
/// Companions: the scale ("scale_weight", today "weight_scale"; float32, [] or [1] or [out, 1]) and
/// the input's scale, which only products in 8 bits use. Source: ComfyUI comfy/ops.py,
/// scaled_fp8_ops, and its QUANTIZATION.md.
const Encoding& float8_e4m3fn();
const Encoding& float8_e5m2();
/// float8_e4m3fn of a layer that must not multiply 8-bit numbers ("full_precision_matrix_mult").
const Encoding& float8_e4m3fn_decoded();

/// Whether a device multiplies 8-bit numbers: found out by trying, once.
bool has_products(at::Device device);

/// x · Wᵀ + bias as a product of 8-bit numbers: x [..., in] of a half type is divided by the
/// weight's input scale (1 without one, and then clamped to ±448), rounded to float8_e4m3fn, and
/// multiplied with the numbers as they lie; in x's dtype. Undefined where the weight is no
/// float8_e4m3fn of one scale, a size is no multiple of 16, or the device has no such products.
/// Source: ComfyUI comfy/ops.py, fp8_linear.
at::Tensor fast_linear(const at::Tensor& x, const Packed& weight, const at::Tensor& bias);

}  // namespace distorch::quant
