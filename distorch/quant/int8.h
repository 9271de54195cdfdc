#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Signed numbers of 8 bits with one scale for the tensor or one for each row: weight = values ·
/// scale. With `rotated` (a group size, 0: not) the product with groups of rotated inputs is meant
/// (rotation.h). Companion: "weight_scale", float32 [] or [out, 1].
/// Layers multiply 8-bit numbers with 8-bit numbers: inputs are rotated, each row is divided by its
/// largest magnitude over 127 and rounded half to even; sums are exact; the result is scaled by the
/// row's and the weight's scale, in float32. On every device, as ComfyUI does.
/// Source: ComfyUI comfy/ops.py; its package comfy-kitchen, backends/eager/quantization.py.
const Encoding& int8_tensorwise(int rotated = 0);

/// How inputs become whole numbers of few bits.
struct Levels {
  int most = 127;        // the largest magnitude of a row becomes this
  int least = -128;      // and none is below this
  float floor = 1e-30f;  // of scales
};
constexpr Levels kEightBits{};
constexpr Levels kFourBits{7, -7, 1e-10f / 7};

/// What a product with whole numbers needs beside the input.
struct WholeNumbers {
  at::Tensor values;  // int8 [out, in]
  at::Tensor scale;   // of any float type: one number, or one for each of `out`
  int rotated = 0;    // group size; 0: the inputs are not rotated
  Levels levels = kEightBits;
};

/// What a weight that int8_tensorwise() packs is for products; nothing for others.
std::optional<WholeNumbers> whole_numbers(const Packed& weight);

/// x · (values · scale)ᵀ + bias, of x [..., in] in float32, float16 or bfloat16 and in its dtype:
/// distorch::int8_linear.
at::Tensor int8_linear(const at::Tensor& x, const WholeNumbers& weight, const at::Tensor& bias);

/// Rows x [M, K] of any float type as whole numbers, rotated before (`rotated` > 0):
/// {int8 [M, K], float32 [M]}. On CPU tensors and those that compute as such.
std::pair<at::Tensor, at::Tensor> whole_rows(const at::Tensor& x, int rotated,
                                             const Levels& levels);

}  // namespace distorch::quant
