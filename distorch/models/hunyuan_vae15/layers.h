#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "distorch/models/causal_vae/layers.h"
#include "distorch/models/hunyuan_vae/layers.h"
#include "distorch/weights/manifest.h"

/// Layers of HunyuanVideo 1.5's autoencoder: convolutions of hunyuan_vae/ behind norms of
/// causal_vae/, and changes of size that move pixels into channels. Activations are frames of one
/// clip, [T, C, h, w] in channels-last; a clip passes group by group. Source: ComfyUI
/// comfy/ldm/hunyuan_video/vae_refiner.py.
namespace distorch::models::hunyuan_vae15 {

/// The last two frames that a convolution saw, [2, C, h, w]; undefined before the first.
using Past = at::Tensor;
using causal_vae::ChannelNorm;
using hunyuan_vae::CausalConv;

/// Of one clip on its way: what a layer has to remember of the groups before.
struct Memory {
  Past first, second;
};

/// One group's way through the layers.
struct Pass {
  bool begins = true;  // the clip: the group is its first frame alone
  bool keep = false;   // a group follows
};

/// What a convolution has to remember after x. The clip's first frame also stands before it.
Past remembered(const at::Tensor& x, const Past& past);

/// Norm, SiLU, causal convolution, twice, residual. One weights::Block.
class ResBlock {
 public:
  ResBlock(const weights::Scope& scope, std::int64_t channels);
  /// `memory` is brought up to date where `pass` says so.
  at::Tensor forward(const at::Tensor& x, const Pass& pass, Memory& memory) const;

 private:
  weights::Block block_;
  ChannelNorm norm1_;
  CausalConv conv1_;
  ChannelNorm norm2_;
  CausalConv conv2_;
};

/// Self-attention of one head over all pixels of all frames, residual. One weights::Block.
class Attention {
 public:
  Attention(const weights::Scope& scope, std::int64_t channels)
      : block_(scope),
        norm_(scope / "norm", channels, ChannelNorm::Of::Frames),
        attention_(scope, channels) {}
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  ChannelNorm norm_;
  hunyuan_vae::PixelAttention attention_;
};

/// How a step between two levels moves pixels.
struct Step {
  std::int64_t in = 0, out = 0;  // channels
  bool time = false;             // frames too, but for the clip's first
  std::int64_t cells() const { return time ? 8 : 4; }
};

/// Halves height and width: pixels and, with `time`, pairs of frames become channels. What is past
/// the convolution is the mean over neighbouring ones. One weights::Block.
class Shrink {
 public:
  Shrink(const weights::Scope& scope, const Step& step)
      : block_(scope), step_(step), conv_(scope / "conv", step.in, step.out / step.cells()) {}
  at::Tensor forward(const at::Tensor& x, const Pass& pass, Memory& memory) const;

 private:
  at::Tensor smaller(const at::Tensor& x, const at::Tensor& convolved, bool begins) const;

  weights::Block block_;
  Step step_;
  CausalConv conv_;
};

/// The way back: channels become pixels and frames; what is past the convolution is repeated. One
/// weights::Block.
class Grow {
 public:
  Grow(const weights::Scope& scope, const Step& step)
      : block_(scope), step_(step), conv_(scope / "conv", step.in, step.out * step.cells()) {}
  at::Tensor forward(const at::Tensor& x, const Pass& pass, Memory& memory) const;

 private:
  at::Tensor larger(const at::Tensor& x, const at::Tensor& convolved, bool begins) const;

  weights::Block block_;
  Step step_;
  CausalConv conv_;
};

/// frames [T, C, h, w] -> [T / times, times · 4 · C, h / 2, w / 2]: frame by frame, row by row,
/// column by column, channels last of all.
at::Tensor pixels_to_channels(const at::Tensor& frames, std::int64_t times);
/// And back.
at::Tensor channels_to_pixels(const at::Tensor& frames, std::int64_t times);
/// Means over `each` neighbouring channels.
at::Tensor mean_of_channels(const at::Tensor& frames, std::int64_t each);

}  // namespace distorch::models::hunyuan_vae15
