#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/nn/conv.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::vae {

/// Norm, SiLU, 3x3 convolution, twice; [B, in, h, w] -> [B, out, h, w] with a 1x1 convolution past
/// it where the width changes. One weights::Block.
class ResBlock {
 public:
  ResBlock(const weights::Scope& scope, std::int64_t in, std::int64_t out);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  nn::GroupNorm norm1_;
  nn::Conv2d conv1_;
  nn::GroupNorm norm2_;
  nn::Conv2d conv2_;
  std::optional<nn::Conv2d> shortcut_;
};

/// Self-attention of one head over all pixels, residual: [B, C, h, w] -> the same. One
/// weights::Block.
class PixelAttention {
 public:
  PixelAttention(const weights::Scope& scope, std::int64_t channels);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  nn::GroupNorm norm_;
  nn::Conv2d q_, k_, v_, out_;
};

/// The lowest level of either half: residual block, attention, residual block.
class Middle {
 public:
  Middle(const weights::Scope& scope, std::int64_t channels);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  ResBlock first_;
  PixelAttention attention_;
  ResBlock second_;
};

/// Halves height and width by a 3x3 convolution of stride 2 with zeros to the right and below only.
/// One weights::Block.
class Downsample {
 public:
  Downsample(const weights::Scope& scope, std::int64_t channels);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  nn::Conv2d conv_;
};

/// Doubles height and width by nearest neighbours, then a 3x3 convolution. One weights::Block.
class Upsample {
 public:
  Upsample(const weights::Scope& scope, std::int64_t channels);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  nn::Conv2d conv_;
};

}  // namespace distorch::models::vae
