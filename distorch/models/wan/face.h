#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "distorch/models/wan/config.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

/// What Wan Animate has beside the video: a pose and a face that move. Source: Wan-Animate (Wan Team
/// 2025); ComfyUI comfy/ldm/wan/model_animate.py. The motion encoder is that of LIA (Wang et al.
/// 2022) with the layers of StyleGAN2 (Karras et al. 2020).
namespace distorch::models::wan {

/// How a face moves, from its pictures: [N, 3, 512, 512], -1..1 -> [N, 512].
class MotionEncoder {
 public:
  explicit MotionEncoder(const weights::Scope& scope);
  at::Tensor operator()(const at::Tensor& pictures) const;

 private:
  struct Residual {
    Residual(const weights::Scope& scope, std::int64_t in, std::int64_t out);
    weights::Weight first, first_bias, blur, second, second_bias, skip_blur, skip;
  };
  struct Linear {
    weights::Weight weight, bias;
  };
  static at::Tensor residual(const Residual& layer, const at::Tensor& x);

  weights::Weight entry_, entry_bias_, exit_, directions_;
  std::vector<Residual> residual_;
  std::vector<Linear> linear_;
};

/// A convolution over time that sees the frame and those before it; the first frame stands for what
/// is before it. x [B, C, T] -> [B, C', T / stride]. Declares `conv.weight`, `conv.bias`.
class CausalConv1d {
 public:
  struct Sizes {
    std::int64_t in, out, stride = 1;
  };
  CausalConv1d(const weights::Scope& scope, const Sizes& sizes);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  std::int64_t stride_;
  weights::Weight weight_, bias_;
};

/// Motions [B, T, 512] -> tokens [B, T / 4, 5, width].
class FaceEncoder {
 public:
  FaceEncoder(const weights::Scope& scope, const Config& config);
  at::Tensor operator()(const at::Tensor& motions) const;

 private:
  CausalConv1d first_, second_, third_;
  nn::Linear out_;
  weights::Weight padding_;
};

/// Video tokens attend to the face's tokens of their frame. One weights::Block.
class FaceBlock {
 public:
  FaceBlock(const weights::Scope& scope, const Config& config);
  /// x [B, T · n, width], face [B, T, 5, width] -> x with what was seen.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& face) const;

 private:
  std::int64_t heads_;
  weights::Block block_;
  nn::Linear kv_, q_, out_;
  nn::RmsNorm norm_q_, norm_k_;
};

/// All of it. Blocks: "pose in", "face in", then a layer behind every fifth of the video's.
class Animate {
 public:
  Animate(const weights::Scope& root, const Config& config);

  /// tokens [B, T · n, width] of a latent [B, _, T, h, w] with the pose [B, 16, T', h, w] added from
  /// the second frame on; undefined: as they are.
  at::Tensor posed(const at::Tensor& tokens, const at::Tensor& pose, at::IntArrayRef latent) const;
  /// The face's tokens for so many latent frames, of its pictures [B, 3, T, 512, 512].
  at::Tensor face_of(const at::Tensor& pictures, std::int64_t frames) const;
  /// x behind the video's layer `layer`.
  at::Tensor after(std::int64_t layer, const at::Tensor& x, const at::Tensor& face) const;

 private:
  weights::Block pose_block_, face_block_;
  weights::Weight pose_, pose_bias_;
  std::optional<MotionEncoder> motion_;
  std::optional<FaceEncoder> encoder_;
  std::vector<FaceBlock> layers_;
};

}  // namespace distorch::models::wan
