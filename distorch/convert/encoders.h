#pragma once
#include "distorch/convert/form.h"

/// The forms of form.cpp's list that have a file of their own.
namespace distorch::convert {

/// quant/bf16_planes.h; null unless the weight is plain bf16 (or packed so already).
std::unique_ptr<Encoder> packed_encoder(const Source& source);

/// float8_e4m3fn with one scale: "layer.weight", "layer.weight_scale" and a marker, as ComfyUI reads
/// it. Scale = largest magnitude / 448.
std::unique_ptr<Encoder> fp8_encoder(const Source& source);

/// int8 with a scale a row ("int8_tensorwise"), rotated in groups of 256 (ConvRot) where rows are
/// whole groups.
std::unique_ptr<Encoder> int8_encoder(const Source& source);
/// nvfp4; null where the weight is no matrix of whole 16s.
std::unique_ptr<Encoder> nvfp4_encoder(const Source& source);

/// A block type of GGUF (blocks.h); null where the weight is no matrix of whole blocks.
std::unique_ptr<Encoder> block_encoder(const Source& source, const std::string& type);

/// BFloat16 where the file has that, so that nothing is copied before it is packed; else Float.
at::ScalarType reads_floats(const Source& source);
/// Error(Format) that names the weight and says how to leave it alone, unless `finite`.
void check_finite(const Source& source, bool finite, const std::string& type);

/// "layer.comfy_quant" for "layer.weight": the text as bytes.
NewTensor marker_of(const std::string& weight, const std::string& text);
at::Tensor bytes_of(const std::string& text);
/// "layer." + `ending` for "layer.weight".
std::string beside(const std::string& weight, const std::string& ending);

}  // namespace distorch::convert
