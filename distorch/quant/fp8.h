#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Numbers of 8 bits with one scale for the whole tensor (or one a row): weight = values · scale.
/// Companions: the scale ("scale_weight", today "weight_scale"; float32, [] or [1] or [out, 1]) and
/// the input's scale, which only products in 8 bits use. Source: ComfyUI comfy/ops.py,
/// scaled_fp8_ops, and its QUANTIZATION.md.
const Encoding& float8_e4m3fn();
const Encoding& float8_e5m2();

}  // namespace distorch::quant
