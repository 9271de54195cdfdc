#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::quant {

/// The numbers of GGUF blocks: `blocks` [bytes] uint8 of a packed type (formats::BlockType::id) -> [n]
/// in `dtype` (Float, Half or BFloat16) on the same device, each rounded once from the float32 that
/// the package `gguf` computes. An operator of torch, "distorch::decode_blocks": CPUs (Highway),
/// CUDA devices (a kernel of our own; where it cannot be had, the host decodes), Meta.
/// Error(Internal) for other types, dtypes and broken blocks.
at::Tensor decode_blocks(const at::Tensor& blocks, int type, at::ScalarType dtype);

}  // namespace distorch::quant
