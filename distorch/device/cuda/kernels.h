#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include "distorch/device/group_norm.h"

namespace distorch::device::cuda {

/// As device::to_channels_last_in_place(), by a kernel of our own that needs no memory beside a
/// multiprocessor's own. False where there is none for this device, dtype or shape: NVRTC or the
/// driver is missing, or a filter is larger than that memory.
bool to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream);

/// As device::group_norm(), by kernels of our own. Undefined where there are none for this dtype
/// (of 2 or 4 bytes) or shape: groups of an odd number of channels or of more than 256.
at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options);

}  // namespace distorch::device::cuda
