#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

namespace distorch::device {

/// Rearranges the values of convolution weights [O, I, H, W], contiguous as files have them, within
/// their memory to [O, H, W, I], which is what channels-last convolutions read: on `stream`, after
/// what was issued there. The operator distorch::to_channels_last_: on CUDA a kernel of our own
/// (cuda/kernels.h) at the speed of the memory, else through a copy.
void to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream);

/// The tensor that such memory then holds: the same shape, with the strides of channels-last.
at::Tensor as_channels_last(const at::Tensor& weight);

}  // namespace distorch::device
