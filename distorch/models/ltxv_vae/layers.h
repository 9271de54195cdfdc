#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "distorch/models/ltxv_vae/config.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

/// Layers of LTX-Video's autoencoder. Activations are the frames of one clip, [T, C, h, w] in
/// channels-last. What is between two layers is made a few frames at a time, so that no more than a
/// block's input and output are as long as the clip. Source: ComfyUI
/// comfy/ldm/lightricks/vae/causal_video_autoencoder.py.
namespace distorch::models::ltxv_vae {

/// What stands before a convolution: every cell divided by the root mean square of its channels,
/// · (1 + scale) + shift by channel [C] where they are given, and SiLU.
struct Prepared {
  at::Tensor shift, scale;
  /// frames [n, C, h, w] -> the same of new memory.
  at::Tensor of(const at::Tensor& frames) const;
};

/// What convolutions see beyond a frame and beyond the clip.
struct Sight {
  Edges edges = Edges::Zeros;
  /// A frame and the two before it, else one on either side. The clip's first and last frame are
  /// repeated outwards.
  bool causal = true;
};

/// A 3x3x3 convolution. Declares `conv.weight` [out, in, 3, 3, 3] and `conv.bias`.
class Conv {
 public:
  Conv(const weights::Scope& scope, std::int64_t in, std::int64_t out, Sight sight,
       std::int64_t time = 1, std::int64_t space = 1);
  /// Every `time`-th frame and `space`-th cell of the result, from the first. `before`: what each
  /// frame is put through first; null: nothing.
  at::Tensor operator()(const at::Tensor& x, const Prepared* before = nullptr) const;
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  at::Tensor seen(const at::Tensor& x, std::int64_t first, std::int64_t count,
                  const Prepared* before) const;

  Sight sight_;
  std::int64_t time_, space_;
  weights::Weight weight_, bias_;
};

/// The embedding of a noise level, for the layers that are told of it. One weights::Block.
class TimeEmbedder {
 public:
  TimeEmbedder(const weights::Scope& scope, std::int64_t width);
  /// level [1] -> [width]
  at::Tensor forward(const at::Tensor& level) const;

 private:
  weights::Block block_;
  nn::Linear first_, second_;
};

/// Twice: norm, SiLU, convolution; with a norm and a 1x1x1 convolution past it where the width
/// changes. One weights::Block.
class ResBlock {
 public:
  struct Options {
    bool noise = false;
    bool timed = false;
  };
  ResBlock(const weights::Scope& scope, std::int64_t in, std::int64_t out, Sight sight,
           Options options);
  /// time [4 · C] where the block is timed; noise [2, h, w] where it takes any.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& time = {},
                     const at::Tensor& noise = {}) const;

 private:
  at::Tensor run(const at::Tensor& x, const at::Tensor& time, const at::Tensor& noise) const;
  at::Tensor past(const at::Tensor& x) const;

  weights::Block block_;
  Conv conv1_, conv2_;
  weights::Weight noise1_, noise2_, modulation_, shortcut_, shortcut_bias_;
  std::optional<nn::LayerNorm> norm3_;
};

/// A stage that changes the size. One weights::Block.
class Resample {
 public:
  Resample(const weights::Scope& scope, const Stage& stage, Sight sight, bool up);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  at::Tensor down(const at::Tensor& x) const;
  at::Tensor up(const at::Tensor& x) const;

  weights::Block block_;
  Stage stage_;
  bool up_;
  Conv conv_;
};

}  // namespace distorch::models::ltxv_vae
