#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include "distorch/device/group_norm.h"

namespace distorch::device::cuda {

/// As device::to_channels_last_in_place(), by a kernel of our own that needs no memory beside a
/// multiprocessor's own. False where there is none for this device, dtype or shape: NVRTC or the
/// driver is missing, or a filter is larger than that memory.
bool to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream);

/// Of tensors for which has_group_norm_kernel() is true. Undefined where NVRTC or the driver is
/// missing.
at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      const GroupNormOptions& options);

}  // namespace distorch::device::cuda
