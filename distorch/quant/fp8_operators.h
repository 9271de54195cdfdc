#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

namespace distorch::quant {

/// The numbers in float8_e4m3fn or, `wide`, float8_e5m2 whose bytes (uint8 [rows, ...]) these are,
/// in `dtype` (float32, float16 or bfloat16). `scale`, of any float type: one number, one for each
/// row, or undefined; it is rounded to `dtype`, and so is each product. distorch::decode_float8.
at::Tensor decode_float8(const at::Tensor& bytes, const at::Tensor& scale, bool wide,
                         at::ScalarType dtype);

/// x in float8_e4m3fn by one scale (undefined: 1) as products of 8-bit numbers take it: x / scale in
/// float32, kept within ±448, rounded to even. {of x's shape, the scale as float32 [1]}.
/// distorch::to_float8. Source: ComfyUI's package comfy-kitchen, backends/cuda,
/// quantize_per_tensor_fp8.
std::pair<at::Tensor, at::Tensor> to_float8(const at::Tensor& x, const at::Tensor& scale);

/// value.to(dtype), in one pass of our own where the numbers have 8 bits.
at::Tensor numbers_in(const at::Tensor& value, at::ScalarType dtype);

}  // namespace distorch::quant
