#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/models/wan/config.h"
#include "distorch/nn/conv.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::wan {

/// Reads where a camera's rays go, at the pixels' size, as tokens that are added to the video's. One
/// weights::Block. Source: Wan-Fun Camera; ComfyUI comfy/ldm/wan/model.py, WanCamAdapter.
class CameraAdapter {
 public:
  CameraAdapter(const weights::Scope& scope, const Config& config);
  /// rays [B, C, T, 8·h, 8·w] of a latent [B, _, T, h, w] -> [B, T · rows · columns, width].
  /// Error(Shape) where they are not of the latent's size.
  at::Tensor forward(const at::Tensor& rays, at::IntArrayRef latent) const;

 private:
  struct Residual {
    Residual(const weights::Scope& scope, std::int64_t width);
    nn::Conv2d first, second;
  };
  weights::Block block_;
  nn::Conv2d conv_;
  std::vector<Residual> residual_;
};

}  // namespace distorch::models::wan
