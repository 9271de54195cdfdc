#pragma once
#include <string>
#include <string_view>

#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// How a weight is packed, by what its file says of it: the JSON of a "<layer>.comfy_quant" tensor,
/// or of the layer's entry in the file's "_quantization_metadata":
///   {"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 256, ...}.
/// Error(Format) naming `file` and `weight` where the text is no such thing, names a format that is
/// not known, or a setting of it that is not possible. What it returns lives as long as the process.
/// Source: ComfyUI QUANTIZATION.md and comfy/ops.py (_load_quantized_module).
const Encoding& encoding_of_marker(std::string_view json, const std::string& file,
                                   const std::string& weight);

}  // namespace distorch::quant
