#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "distorch/nn/conv.h"
#include "distorch/weights/manifest.h"

/// Layers of the causal autoencoder. Activations are the frames of one video, [T, C, h, w] in
/// channels-last. Source: ComfyUI comfy/ldm/wan/vae.py.
namespace distorch::models::causal_vae {

/// The last frames (two at most) that a causal convolution has seen, [n, C, h, w]; undefined before
/// the first.
using Past = at::Tensor;

/// Scales every pixel's channels to length sqrt(C), then by `gamma`; the second form applies SiLU
/// to that. Declares `gamma` [C, 1, 1, 1] (frames) or [C, 1, 1] (pictures).
class ChannelNorm {
 public:
  enum class Of { Frames, Pictures };
  ChannelNorm(const weights::Scope& scope, std::int64_t channels, Of of);
  at::Tensor operator()(const at::Tensor& x) const;
  at::Tensor silu(const at::Tensor& x) const;

 private:
  double scale_;
  weights::Weight gamma_;
};

/// A convolution over time and space that sees the frame itself and the two before it; frames
/// before the first are zeros. Declares `weight` [out, in, 3, k, k] (or [out, in, 1, 1, 1]) and
/// `bias`. Runs as one convolution of pictures for each frame it sees.
class CausalConv {
 public:
  struct Kernel {
    std::int64_t time = 3, space = 3;
  };
  CausalConv(const weights::Scope& scope, std::int64_t in, std::int64_t out, Kernel kernel);
  CausalConv(const weights::Scope& scope, std::int64_t in, std::int64_t out)
      : CausalConv(scope, in, out, Kernel{}) {}
  /// x [T, in, h, w] -> [T, out, h, w].
  at::Tensor operator()(const at::Tensor& x, const Past& past = {}) const;
  /// Every other frame without anything before the first: x [T, in, h, w] -> [(T - 1) / 2, ...].
  at::Tensor halved(const at::Tensor& x) const;
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  at::Tensor frame_product(const at::Tensor& x, std::int64_t step, bool with_bias) const;

  Kernel kernel_;
  weights::Weight weight_, bias_;
};

/// What a convolution has to remember after x: its last two frames, with those before them.
Past remembered(const at::Tensor& x, const Past& past);

/// Norm, SiLU, causal convolution, twice, with a 1x1 convolution past it where the width changes.
/// One weights::Block.
class ResidualBlock {
 public:
  ResidualBlock(const weights::Scope& scope, std::int64_t in, std::int64_t out);
  struct Memory {
    Past first, second;
  };
  /// `memory` is brought up to date where `keep` is set.
  at::Tensor forward(const at::Tensor& x, Memory& memory, bool keep) const;

 private:
  weights::Block block_;
  ChannelNorm norm1_, norm2_;
  CausalConv conv1_, conv2_;
  std::optional<CausalConv> shortcut_;
};

/// Self-attention of one head over the pixels of each frame, residual. One weights::Block.
class FrameAttention {
 public:
  FrameAttention(const weights::Scope& scope, std::int64_t channels);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  ChannelNorm norm_;
  nn::Conv2d qkv_, out_;
};

/// Halves height and width; with `time`, frames behind the first chunk are halved as well. One
/// weights::Block.
class Downsample {
 public:
  Downsample(const weights::Scope& scope, std::int64_t channels, bool time);
  at::Tensor forward(const at::Tensor& x, Past& past, bool keep) const;

 private:
  weights::Block block_;
  nn::Conv2d conv_;
  std::optional<CausalConv> time_;
};

/// Doubles height and width and halves the channels (in -> out); with `time`, frames behind the
/// first chunk are doubled as well. One weights::Block.
class Upsample {
 public:
  Upsample(const weights::Scope& scope, std::int64_t in, std::int64_t out, bool time);
  at::Tensor forward(const at::Tensor& x, Past& past, bool first_chunk, bool keep) const;

 private:
  at::Tensor doubled_in_time(const at::Tensor& x, const Past& past) const;

  weights::Block block_;
  nn::Conv2d conv_;
  std::optional<CausalConv> time_;
};

}  // namespace distorch::models::causal_vae
