#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/device/cuda/nvrtc.h"
#include "distorch/quant/packed.h"

// Products of block-scaled numbers with block-scaled inputs, on devices that have them.
namespace distorch::quant {

/// Inputs x [M, K] as such a product takes them, with rows of zeros up to a multiple of 32.
struct ScaledInputs {
  at::Tensor values;  // float8_e4m3fn [M', K], or two numbers of 4 bits a byte, uint8 [M', K / 2]
  at::Tensor scales;  // blocked (block_scaled.h): float8_e8m0fnu, or float8_e4m3fn
};

/// As mxfp8, or, with `whole` (float32, one number: the scale of all), as nvfp4, rounded as weights
/// are. K is a multiple of 32 (nvfp4: 16). distorch::scaled_inputs.
ScaledInputs scaled_inputs(const at::Tensor& x, const at::Tensor& whole);

/// Whether a device multiplies such numbers: found out by trying, once, with a product that has to
/// be right. `four`: nvfp4, else mxfp8.
bool has_block_products(at::Device device, bool four);

/// x · Wᵀ + bias with a weight in nvfp4() or mxfp8() and x [..., in] of a half type rounded to the
/// same form: nvfp4 by the weight's input scale or, without one, by x's own largest magnitude.
/// Undefined where the device has no such products, x is of another type, or the weight is cut to
/// rows that lie across tiles of scales.
/// Source: ComfyUI 0.33 comfy/quant_ops.py, comfy/ops.py; comfy-kitchen, tensor/nvfp4.py, mxfp8.py.
at::Tensor block_linear(const at::Tensor& x, const Packed& weight, const at::Tensor& bias);

namespace cuda {
/// The operator on a CUDA device; undefined where there is no kernel for it.
ScaledInputs scaled_inputs(const at::Tensor& x, const at::Tensor& whole);
/// The kernel; compiled by device::cuda::define_of(dtype) and " -DFOUR=0" or "1".
const device::cuda::KernelSource& scaled_inputs_source();
}  // namespace cuda

}  // namespace distorch::quant
