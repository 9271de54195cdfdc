#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Signed numbers of 4 bits, two a byte, the low half first, of a weight whose inputs are rotated in
/// groups of `group` (rotation.h), with a scale for each row: "weight_scale" float32 [out].
/// Layers multiply like those of int8.h, but inputs become numbers from -7 to 7.
/// Source: ComfyUI's package comfy-kitchen, backends/eager/convrot_w4a4.py.
const Encoding& convrot_w4a4(int group);

}  // namespace distorch::quant
