#pragma once
#include <ATen/core/Tensor.h>

#include <variant>

namespace distorch::sampling {

/// What a LATENT_OPERATION does to a latent (or to the guidance, which is one too).
/// Source: ComfyUI comfy_extras/nodes_latent.py.
struct TonemapReinhard {
  double multiplier = 1.0;  // of the magnitude that is compressed to half
  bool operator==(const TonemapReinhard&) const = default;
};
struct Sharpen {
  int radius = 9;  // in cells
  double sigma = 1.0;
  double alpha = 0.1;
  bool operator==(const Sharpen&) const = default;
};
using LatentOperation = std::variant<TonemapReinhard, Sharpen>;

/// latent [B, C, H, W] -> the same shape. Error(Usage) where the latent is smaller than the radius.
at::Tensor apply_operation(const LatentOperation& operation, const at::Tensor& latent);

}  // namespace distorch::sampling
