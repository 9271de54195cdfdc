#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

#include "distorch/quant/int8.h"

/// Kernels of our own for CUDA tensors. Undefined where NVRTC or the driver is missing, or where
/// the tensors' types, shapes or group sizes are not what the kernels read.
namespace distorch::quant::cuda {

/// As quant::rotated().
at::Tensor rotated(const at::Tensor& x, std::int64_t group);

/// As quant::whole_rows() of x [M, K], with `padded` rows of which those from M on are zeros:
/// {int8 [padded, K], float32 [M]}.
std::pair<at::Tensor, at::Tensor> whole_rows(const at::Tensor& x, std::int64_t padded, int rotated,
                                             const Levels& levels);

/// sums [at least M, N] int32 · (row [M] · scale [1 or N]) + bias, in `dtype`: [M, N].
at::Tensor scaled(const at::Tensor& sums, const at::Tensor& row, const at::Tensor& scale,
                  const at::Tensor& bias, at::ScalarType dtype);

/// As quant::nibbles_by_table() of bytes [N, K/2], or, with `scales` undefined, signed_nibbles().
at::Tensor nibbles(const at::Tensor& bytes, const at::Tensor& scales, const at::Tensor& levels,
                   std::int64_t group);

}  // namespace distorch::quant::cuda
