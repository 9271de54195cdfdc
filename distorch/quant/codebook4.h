#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Indices of 4 bits, two a byte, the low half first, into sixteen levels, of a weight whose inputs
/// are rotated in groups of `rotated` (rotation.h): level · group scale, rounded to whole numbers
/// within ±127, times the row's scale. Companions: "weight_s_rel" float8_e4m3fn (or its bytes as U8)
/// or float32 [out, in / group]; "weight_s_channel" float32 [out]; "weight_codebook" float32 [16],
/// without which the levels are -8 .. 7. Layers multiply the whole numbers like those of int8.h.
/// Source: ComfyUI's package comfy-kitchen, backends/eager/w4a8_int8.py.
const Encoding& asym_w4a8_int8(int group, int rotated);

}  // namespace distorch::quant
