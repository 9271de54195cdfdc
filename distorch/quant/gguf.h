#pragma once
#include "distorch/quant/encoding.h"

namespace distorch::quant {

/// Weights as GGUF files pack them, one encoding for each type of blocks ("Q4_K"): values are the
/// bytes, [rows, bytes of a row] where every row of dimension 0 is whole blocks, else [bytes]. They
/// are decoded where they are used (gguf_decode.h).
const std::vector<const Encoding*>& gguf_encodings();

/// The shape of the tensor of `bytes` bytes that stands for a weight of this shape, where its file
/// says how it is packed (formats::TensorInfo::packing).
std::vector<std::int64_t> value_shape_of(const Encoding& encoding,
                                         const std::vector<std::int64_t>& shape,
                                         std::int64_t bytes);

/// The same blocks with numbers that are rounded to `dtype` (Half or BFloat16) before they become
/// what is asked for; null for an encoding that is none of these.
const Encoding* gguf_rounded_to(const Encoding* encoding, at::ScalarType dtype);
/// The same blocks with numbers as ComfyUI-GGUF computes them, every step in float16 (gguf_in_half.h),
/// then rounded to `then` where that is given; null for an encoding that it does not decode so.
const Encoding* gguf_in_half(const Encoding* encoding,
                             std::optional<at::ScalarType> then = std::nullopt);

/// Rows `ids` [n] (int64) of dimension 0 in `dtype`; of GGUF blocks only these are decoded.
at::Tensor rows_at(const Packed& weight, const at::Tensor& ids, at::ScalarType dtype);

}  // namespace distorch::quant
