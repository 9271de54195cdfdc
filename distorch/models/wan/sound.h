#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <vector>

#include "distorch/models/wan/block.h"
#include "distorch/models/wan/face.h"

/// What Wan S2V has beside the video: speech that moves it, a picture and earlier frames to go on
/// from, a pose. Source: Wan-S2V (Wan Team 2025); ComfyUI comfy/ldm/wan/model.py, WanModel_S2V.
namespace distorch::models::wan {

/// States of an audio encoder, all of its layers, as tokens of latent frames.
class AudioEncoder {
 public:
  AudioEncoder(const weights::Scope& scope, const Config& config);
  struct Tokens {
    at::Tensor whole;  // [B, T, 1, width], of each frame as one
    at::Tensor parts;  // [B, T, 5, width]
  };
  /// audio [B, layers, channels, 4 · T].
  Tokens operator()(const at::Tensor& audio) const;

 private:
  at::Tensor tail(const at::Tensor& x) const;

  weights::Weight shares_, padding_;
  CausalConv1d parts_, whole_, second_, third_;
  nn::Linear out_;
};

/// The video's tokens attend to those of the sound of their frame. One weights::Block.
class AudioBlock {
 public:
  AudioBlock(const weights::Scope& injector, const weights::Scope& norm, const Config& config);
  /// The first `video` tokens of x [B, L, width] with what was heard.
  at::Tensor forward(const at::Tensor& x, const AudioEncoder::Tokens& audio,
                     std::int64_t video) const;

 private:
  std::int64_t heads_;
  weights::Block block_;
  nn::Linear shift_scale_, q_, k_, v_, out_;
  nn::RmsNorm norm_q_, norm_k_;
};

/// All of it. Blocks: "sound in", "pose in", "motion in", "marks", then a layer behind some of the video's.
class Sound {
 public:
  Sound(const weights::Scope& root, const Config& config);

  /// Tokens beside the video's, with where they stand.
  struct More {
    at::Tensor tokens, positions;  // [B, n, width], [1, n, 3]
  };
  /// Undefined where there is no sound: [B, layers, channels, at least 4 · frames].
  AudioEncoder::Tokens hear(const at::Tensor& audio, std::int64_t frames) const;
  /// tokens of the video with a control video's [B, 16, T, h, w]; undefined: as they are.
  at::Tensor controlled(const at::Tensor& tokens, const at::Tensor& control) const;
  /// tokens [B, n, width] with what tells the video's, the reference's and the motion's apart, so
  /// many of each.
  at::Tensor marked(const at::Tensor& tokens, const std::array<std::int64_t, 3>& counts) const;
  /// Earlier frames [B, 16, T, h, w], the nearer the finer.
  More motion(const at::Tensor& latent) const;
  at::Tensor after(std::int64_t layer, const at::Tensor& x, const AudioEncoder::Tokens& audio,
                   std::int64_t video) const;

 private:
  struct Patch {
    weights::Weight weight, bias;
    std::int64_t frames, side;
  };
  at::Tensor patched_latent(const at::Tensor& latent, const Patch& patch) const;

  weights::Block sound_block_, control_block_, motion_block_, marks_block_;
  weights::Weight marks_, control_, control_bias_;
  std::optional<AudioEncoder> encoder_;
  std::vector<Patch> motion_;
  std::vector<AudioBlock> layers_;
};

}  // namespace distorch::models::wan
