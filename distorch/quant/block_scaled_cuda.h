#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::quant::cuda {

/// Rows of nvfp4 (`whole` its scale for all) or mxfp8 (`whole` undefined) in `dtype`, from bytes on
/// a CUDA device; `start`: the row of the scales' first tile that the first row is. Undefined where
/// NVRTC or the driver is missing, or for a type that the kernels do not write.
at::Tensor decode_scaled_blocks(const at::Tensor& values, const at::Tensor& scales,
                                const at::Tensor& whole, std::int64_t start, at::ScalarType dtype);

}  // namespace distorch::quant::cuda
