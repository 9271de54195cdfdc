#pragma once
#include <vector>

#include "distorch/device/cuda/numbers.h"
#include "distorch/device/cuda/nvrtc.h"

/// The kernels of this folder as CUDA source, each compiled by device::cuda::define_of(dtype).
namespace distorch::quant::cuda {

/// All of them, for those who compile them without running them.
std::vector<device::cuda::KernelSource> sources();

const device::cuda::KernelSource& rotate_source();
const device::cuda::KernelSource& whole_rows_source();
const device::cuda::KernelSource& scaled_source();
const device::cuda::KernelSource& decode_four_source();
const device::cuda::KernelSource& decode_eight_source();
const device::cuda::KernelSource& nibbles_source();

}  // namespace distorch::quant::cuda
