#pragma once
#include <map>
#include <string>

#include "distorch/weights/checkpoint.h"

namespace distorch::weights {

/// Finds the packed weights among the tensors of one file, by the markers that say so ("comfy_quant"
/// beside a weight, "_quantization_metadata" in the file's header, "scaled_fp8") or by their types
/// and companions, and gives each its encoding, shape and companions, which are then no tensors of
/// their own. Weights that have an encoding already are left alone.
/// Error(Format) naming the file and the weight: a marker that is not understood or names a way of
/// packing that is not known, tensors that do not fit it (Encoding::fault()), weights of Nunchaku.
/// Source: ComfyUI QUANTIZATION.md, comfy/utils.py (convert_old_quants) and comfy/ops.py.
void gather_packed(std::map<std::string, Stored>& tensors, const formats::TensorFile& file);

}  // namespace distorch::weights
