#pragma once
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::weights {

/// The checkpoint without the rows and columns of zeros that writers add to some packed weights
/// (Encoding::padding()): a weight that has the declared shape but for those gets the declared one.
/// All others stay as they are. Source: ComfyUI's package comfy-kitchen, tensor/nvfp4.py and
/// tensor/mxfp8.py (get_padded_shape), tensor/base.py (dequantize).
Checkpoint without_padding(const Manifest& manifest, Checkpoint checkpoint);

}  // namespace distorch::weights
