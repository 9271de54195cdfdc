#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>

#include "distorch/nn/conv.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::sd {

/// Residual block conditioned on the timestep: norm, SiLU, 3x3 convolution, twice, with a
/// projection of the embedding added in between; a 1x1 convolution carries the input past it where
/// the width changes. One weights::Block.
class ResBlock {
 public:
  struct Widths {
    std::int64_t in, out;  // channels
    std::int64_t time;     // of the timestep embedding
  };
  ResBlock(const weights::Scope& scope, const Widths& widths);

  /// Replaces x and skip before they are stacked, by new tensors; empty: leaves them.
  using Edit = std::function<void(at::Tensor& x, at::Tensor& skip)>;
  /// x [B, C, h, w], skip [B, in - C, h, w] or undefined (stacked below x), emb [B, time] -> [B,
  /// out, h, w].
  at::Tensor forward(const at::Tensor& x, const at::Tensor& skip, const at::Tensor& emb,
                     const Edit& edit = {}) const;

 private:
  at::Tensor apply(const at::Tensor& x, const at::Tensor& emb) const;

  weights::Block block_;
  nn::GroupNorm norm1_;
  nn::Conv2d conv1_;
  nn::Linear time_;
  nn::GroupNorm norm2_;
  nn::Conv2d conv2_;
  std::optional<nn::Conv2d> shortcut_;
};

/// 3x3 convolution of stride 2: [B, C, h, w] -> [B, C, ceil(h/2), ceil(w/2)]. One weights::Block.
class Downsample {
 public:
  Downsample(const weights::Scope& scope, std::int64_t channels)
      : block_(scope), conv_(scope / "op", channels, channels, {.stride = 2}) {}
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  nn::Conv2d conv_;
};

/// Nearest-neighbour resize to `height` x `width`, then a 3x3 convolution. One weights::Block.
class Upsample {
 public:
  Upsample(const weights::Scope& scope, std::int64_t channels)
      : block_(scope), conv_(scope / "conv", channels, channels) {}
  at::Tensor forward(const at::Tensor& x, std::int64_t height, std::int64_t width) const;

 private:
  weights::Block block_;
  nn::Conv2d conv_;
};

}  // namespace distorch::models::sd
