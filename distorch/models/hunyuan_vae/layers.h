#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "distorch/nn/linear.h"
#include "distorch/weights/manifest.h"

/// Layers of HunyuanVideo's autoencoder. Activations are the frames of one clip, [T, C, h, w] in
/// channels-last. What is between two layers is made a few frames at a time, so that no more than a
/// block's input and output are as long as the clip. Source: ComfyUI
/// comfy/ldm/modules/diffusionmodules/model.py with conv3d.
namespace distorch::models::hunyuan_vae {

/// x · scale + shift by channel [C], float32, and SiLU of that: what a norm does once the clip's
/// statistics are known.
struct Affine {
  at::Tensor scale, shift;
  bool silu = true;
  /// frames [n, C, h, w] -> the same of new memory.
  at::Tensor of(const at::Tensor& frames) const;
};

/// Group norm, 32 groups, over all frames of a clip. Declares `weight` and `bias` [C].
class ClipNorm {
 public:
  ClipNorm(const weights::Scope& scope, std::int64_t channels);
  Affine of(const at::Tensor& x, bool silu = true) const;

 private:
  weights::Weight weight_, bias_;
};

/// A 3x3x3 convolution that sees the frame itself and the two before it; edges in time and space are
/// repeated outwards. Declares `conv.weight` [out, in, 3, 3, 3] and `conv.bias`.
class CausalConv {
 public:
  /// What is done with the video first or at once.
  enum class Resize {
    None,
    Halve,       // height and width, by stride
    HalveTime,   // frames too
    Double,      // height and width, by nearest neighbours
    DoubleTime,  // frames too, but for the first
  };
  CausalConv(const weights::Scope& scope, std::int64_t in, std::int64_t out,
             Resize resize = Resize::None);
  /// `before`: what each frame is put through first; null: nothing. `past` [2, C, h, w]: the frames
  /// that stand before those of x, of a convolution that changes no size; undefined: x begins the
  /// clip.
  at::Tensor operator()(const at::Tensor& x, const Affine* before = nullptr,
                        const at::Tensor& past = {}) const;
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  bool halves() const { return resize_ == Resize::Halve || resize_ == Resize::HalveTime; }
  bool doubles() const { return resize_ == Resize::Double || resize_ == Resize::DoubleTime; }
  std::int64_t time_stride() const { return resize_ == Resize::HalveTime ? 2 : 1; }
  std::int64_t frame_at(std::int64_t position) const;
  at::Tensor padded(const at::Tensor& x, const at::Tensor& past, std::int64_t first,
                    std::int64_t count, const Affine* before) const;

  Resize resize_;
  weights::Weight weight_, bias_;
};

/// A 1x1x1 convolution. Declares `weight` [out, in, 1, 1, 1] and `bias`.
class PointConv {
 public:
  PointConv(const weights::Scope& scope, std::int64_t in, std::int64_t out);
  at::Tensor operator()(const at::Tensor& x) const;
  /// The same of [B, L, in].
  at::Tensor tokens(const at::Tensor& x) const;
  at::ScalarType dtype() const { return weight_.dtype(); }

 private:
  weights::Weight weight_, bias_;
};

/// Norm, SiLU, causal convolution, twice, with a 1x1x1 convolution past it where the width changes.
/// One weights::Block.
class ResBlock {
 public:
  ResBlock(const weights::Scope& scope, std::int64_t in, std::int64_t out);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  ClipNorm norm1_;
  CausalConv conv1_;
  ClipNorm norm2_;
  CausalConv conv2_;
  std::optional<PointConv> shortcut_;
};

/// Self-attention of one head over all pixels of all frames.
class PixelAttention {
 public:
  PixelAttention(const weights::Scope& scope, std::int64_t channels);
  /// x [T, C, h, w], normed -> the same, of new memory.
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  PointConv q_, k_, v_, out_;
};

/// The same behind a norm, residual. One weights::Block.
class ClipAttention {
 public:
  ClipAttention(const weights::Scope& scope, std::int64_t channels);
  at::Tensor forward(const at::Tensor& x) const;

 private:
  weights::Block block_;
  ClipNorm norm_;
  PixelAttention attention_;
};

/// A convolution that changes the size. One weights::Block.
class Resample {
 public:
  Resample(const weights::Scope& scope, std::int64_t channels, CausalConv::Resize resize)
      : block_(scope), conv_(scope / "conv", channels, channels, resize) {}
  at::Tensor forward(const at::Tensor& x) const {
    return block_.run1({x}, [this](const weights::Tensors& in) { return conv_(in[0]); });
  }

 private:
  weights::Block block_;
  CausalConv conv_;
};

}  // namespace distorch::models::hunyuan_vae
