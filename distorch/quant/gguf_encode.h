#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::quant {

/// Numbers as blocks of a GGUF type, rounded to the nearest: `x` [n] float32 on the CPU, n whole blocks
/// -> [bytes] uint8. Q8_0 and Q4_0 as the package `gguf` 0.19 writes them (quants.py); Q4_K with the
/// smallest and largest number of each 32 as its range, which is good enough for tests and no match
/// for a search. Error(Internal) for another type.
at::Tensor encode_blocks(const at::Tensor& x, int type);

/// Whether encode_blocks() knows the type.
bool can_encode(int type);

}  // namespace distorch::quant
