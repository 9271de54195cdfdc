#pragma once
#include "distorch/quant/encoding.h"

// Weights as files keep them, from plain numbers: what ComfyUI's package comfy-kitchen makes of the
// same numbers in float32 (its eager back end; tensor/int8.py, fp8.py, nvfp4.py, mxfp8.py,
// convrot_w4a4.py), rounded to nearest. Each takes a matrix [N, K] on the CPU of any float type and
// returns a Packed whose tensors are what a file has under the names of its encoding's companions
// (undefined: none), to be written with Encoding::marker() as the "comfy_quant" tensor.
namespace distorch::quant {

/// One scale for the tensor or, `by_row`, for each row; rotated in groups of `rotated` first (0: not;
/// then always by row). K a multiple of the group.
Packed to_int8(const at::Tensor& weight, bool by_row, int rotated);
/// `dtype` Float8_e4m3fn or Float8_e5m2, one scale for the tensor.
Packed to_float8(const at::Tensor& weight, at::ScalarType dtype);
/// K a multiple of 16.
Packed to_nvfp4(const at::Tensor& weight);
/// Some rows of such a weight, for those who do not have it whole.
struct Nvfp4Rows {
  at::Tensor values;  // U8 [n, K / 2]
  at::Tensor scales;  // float8_e4m3fn [n, K / 16], a row after the other: not yet "blocked"
};
/// rows [n, K] of any float type on the CPU; `whole`: nvfp4_scale() of the weight.
Nvfp4Rows nvfp4_rows(const at::Tensor& rows, float whole);
/// "weight_scale_2" of a weight whose largest magnitude this is.
float nvfp4_scale(float largest);
/// x / scale as float8_e4m3fn, what is beyond 448 as 448: [any] of any float type on the CPU.
at::Tensor e4m3_of(const at::Tensor& numbers, float scale);
/// Of all numbers; 0 of none, NaN where one is.
float largest_magnitude(const at::Tensor& numbers);
/// Scales [N, blocks] of one byte as tensor cores read them: blocked_shape(), block_scaled.h.
at::Tensor blocked_scales(const at::Tensor& scales);
/// K a multiple of 32.
Packed to_mxfp8(const at::Tensor& weight);
/// K a multiple of the group, which is even.
Packed to_convrot_w4a4(const at::Tensor& weight, int rotated);

}  // namespace distorch::quant
