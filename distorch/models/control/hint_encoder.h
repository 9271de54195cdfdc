#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/nn/conv.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::control {

/// The hint at the latent's size: eight 3x3 convolutions with SiLU in between, three of them of
/// stride 2. `widths`: channels of the hint, then of what each of them gives. One weights::Block;
/// the convolutions are called "0", "2", "4", ... below `scope`.
class HintEncoder {
 public:
  HintEncoder(const weights::Scope& scope, const std::vector<std::int64_t>& widths);

  /// [B, channels, H, W] -> [B, last width, H/8, W/8].
  at::Tensor forward(const at::Tensor& hint) const;

 private:
  weights::Block block_;
  std::vector<nn::Conv2d> convs_;
};

}  // namespace distorch::models::control
