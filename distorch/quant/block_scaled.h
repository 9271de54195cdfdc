#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Numbers of few bits with a scale for each block of a row. The scales lie as tensor cores read
/// them ("blocked"): in tiles of 128 rows x 4 blocks, the tiles of the same rows one behind the other,
/// filled up with zeros; in a tile, scale (r, c) is byte (r % 32) · 16 + (r / 32) · 4 + c.
/// Where the device has products of such numbers and the layer computes in a half type, inputs are
/// rounded to the same form and both are multiplied as they lie (scaled_inputs.h); else weights are
/// decoded.
/// Source: ComfyUI's package comfy-kitchen, float_utils.py (to_blocked), tensor/nvfp4.py, mxfp8.py.

/// Two numbers of 4 bits (e2m1) a byte, the first in the high half; blocks of 16 with a scale in
/// float8_e4m3fn, and one scale in float32 for all: weight = (scale_2 · scale) · number, each product
/// rounded to the type that is asked for. Companions: "weight_scale" (blocked, or its bytes as U8),
/// "weight_scale_2" [], and "pre_quant_scale" [in] where inputs are to be multiplied with it first,
/// which decoding does to the weight. "input_scale" [] is the inputs' scale_2 in products.
const Encoding& nvfp4();
/// float8_e4m3fn numbers in blocks of 32 with a power of two each (e8m0; 0 means zero): weight =
/// number · scale. Companion: "weight_scale" (blocked, or its bytes as U8).
const Encoding& mxfp8();

/// Where the scale of a row and a block lies among blocked scales of so many blocks a row.
constexpr std::int64_t blocked_index(std::int64_t row, std::int64_t block, std::int64_t blocks) {
  const auto tile = row / 128 * ((blocks + 3) / 4) + block / 4;
  return tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4;
}
/// {rows, bytes a row} of the tensor that holds them.
std::vector<std::int64_t> blocked_shape(std::int64_t rows, std::int64_t blocks);

}  // namespace distorch::quant
