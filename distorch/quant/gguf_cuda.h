#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "distorch/device/cuda/nvrtc.h"
#include "distorch/formats/gguf_types.h"

namespace distorch::quant {

/// decode_blocks() on a CUDA device by a kernel of our own; undefined where there is none for it
/// (NVRTC or the driver is missing). `grid` is that of the type on the device, undefined without.
/// `in_half`: every step is rounded to float16 (gguf_in_half.h).
at::Tensor decode_on_cuda(const at::Tensor& blocks, const formats::BlockType& type,
                          at::ScalarType dtype, const at::Tensor& grid, bool in_half = false);

/// The kernel, and what it is compiled with for a type and Float, Half or BFloat16: for tests.
const device::cuda::KernelSource& block_kernel();
std::string block_kernel_options(const formats::BlockType& type, at::ScalarType dtype,
                                 bool in_half = false);

}  // namespace distorch::quant
