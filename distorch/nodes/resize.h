#pragma once
#include <ATen/core/Tensor.h>

#include <string>

namespace distorch::nodes {

/// The target of a resize, as the nodes name it.
struct Resize {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::string method =
      "bilinear";            // nearest, nearest-exact, bilinear, area, bicubic, bislerp, lanczos
  bool crop_center = false;  // cut to the new aspect first, around the middle
};

/// samples [B, C, H, W] float32 -> [B, C, height, width]; of [B, C, T, H, W] each frame. bislerp turns the vectors of C numbers on
/// a sphere; lanczos goes through 8-bit pictures as Pillow resizes them, so its values are
/// multiples of 1/255 (C = 1, 3 or 4). Error(Usage) for an unknown method or a size below 1.
/// Source: ComfyUI comfy/utils.py, common_upscale.
at::Tensor resize(const at::Tensor& samples, const Resize& target);

/// 8-bit Lanczos of one picture, float32 [H, W, C] 0..1 in and out. Source: Pillow's fixed-point
/// resampling.
at::Tensor resize_lanczos(const at::Tensor& image, std::int64_t width, std::int64_t height);

/// Rounds halves to even, as Python's round().
std::int64_t round_half_even(double value);

}  // namespace distorch::nodes
