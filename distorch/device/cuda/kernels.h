#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

namespace distorch::device::cuda {

/// As device::to_channels_last_in_place(), by a kernel of our own that needs no memory beside a
/// multiprocessor's own. False where there is none for this device, dtype or shape: NVRTC or the
/// driver is missing, or a filter is larger than that memory.
bool to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream);

}  // namespace distorch::device::cuda
