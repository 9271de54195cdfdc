#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "distorch/models/florence2/config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::florence2 {

/// What a picture looks like to the language model: DaViT, then the projection to the width of
/// texts.
/// Blocks: of each stage its convolution and every pair of blocks, then "image_projection".
/// Source: Ding et al. 2022 (DaViT), Xiao et al. 2023 (Florence-2).
class Vision {
 public:
  /// Declares its weights in `manifest`, which must outlive it. `width`: of the texts.
  Vision(weights::Manifest& manifest, const VisionConfig& config, std::int64_t width);
  ~Vision();

  /// pixels [B, 3, H, W] -> [B, 1 + h·w, width]: the mean of all tokens, then each of them row by
  /// row; h and w are H and W over all strides (24 of 768). Error(Shape) for a picture with more
  /// rows or columns of tokens than there are positions.
  at::Tensor forward(const at::Tensor& pixels) const;
  /// The tower alone: [B, h, w, width of the last stage].
  at::Tensor tower(const at::Tensor& pixels) const;

 private:
  class Stage;
  class Projection;

  std::vector<std::unique_ptr<const Stage>> stages_;
  std::unique_ptr<const Projection> projection_;
};

}  // namespace distorch::models::florence2
