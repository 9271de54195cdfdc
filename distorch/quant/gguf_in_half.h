#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>

namespace distorch::quant {

/// Whether ComfyUI-GGUF decodes blocks of this type by itself, in float16. (Others it leaves to the
/// package `gguf`, in float32.)
bool has_half_steps(std::string_view type);

/// The numbers of GGUF blocks as ComfyUI-GGUF computes them by default: the scale of a run and what is
/// taken off, each product and each difference rounded to float16. `blocks` [bytes] uint8 of a type of
/// has_half_steps() (its formats::BlockType::id) -> [n] in `dtype` (Float, Half or BFloat16) on the
/// same device. An operator of torch, "distorch::decode_in_half", as decode_blocks() is.
/// Error(Internal) for other types, dtypes and broken blocks. Source: ComfyUI-GGUF dequant.py, with
/// `dtype` None.
at::Tensor decode_in_half(const at::Tensor& blocks, int type, at::ScalarType dtype = at::kFloat);

}  // namespace distorch::quant
