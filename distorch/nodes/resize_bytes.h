#pragma once
#include <ATen/core/Tensor.h>

namespace distorch::nodes {

/// 8-bit bicubic of one picture [H, W, C] uint8, which takes all pixels into account where it makes
/// the picture smaller. Source: Pillow's fixed-point resampling.
at::Tensor resize_bicubic_bytes(const at::Tensor& bytes, std::int64_t width, std::int64_t height);

}  // namespace distorch::nodes
