#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>

#include "distorch/models/wan/config.h"
#include "distorch/nn/activated_linear.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/rope.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::wan {

/// What all blocks of a call see.
struct BlockContext {
  /// The noise level's embedding, six parts of the width: [B, 1, 6 · width], or one row a frame
  /// [B, T, 6 · width].
  at::Tensor time;
  nn::RopeTable positions;
  at::Tensor text;    // [B, L, width]
  at::Tensor vision;  // states of a picture encoder [B, n, width]; undefined: none
  /// How much frames are to look at each other beyond what was trained (Enhance-A-Video); 0: as
  /// trained.
  double enhance = 0;
  /// Several prompts one behind the other in `text`, of equal lengths: each is seen by its share of
  /// the frames, the last by those that are left.
  std::int64_t prompts = 1;
  std::int64_t frames = 0;  // of the video; 0: neither of both is asked for
  /// Speech of each latent frame [B, T, n, width of speech], and how much it counts; undefined: none.
  at::Tensor speech;
  double speech_scale = 1;

  /// A block's inputs with these tensors behind its own, and back from where they begin.
  weights::Tensors with(weights::Tensors inputs) const;
  BlockContext from(const weights::Tensors& inputs, std::size_t first) const;
};

/// x [B, 1 or T, C], a row a frame -> a row a token of so many; as it is where it has one row.
/// Tokens that the frames do not divide are those of a reference before them.
at::Tensor by_token(const at::Tensor& x, std::int64_t tokens);

/// One layer: video tokens attend to each other, then to the text and the pictures. One
/// weights::Block. Source: Wan (Wan Team 2025); ComfyUI comfy/ldm/wan/model.py, WanAttentionBlock.
class VideoBlock {
 public:
  VideoBlock(const weights::Scope& scope, const Config& config);
  /// x [B, L, width] -> the same.
  at::Tensor forward(const at::Tensor& x, const BlockContext& context) const;
  /// The same within a block that is running and has the weights of this one.
  at::Tensor run(const at::Tensor& x, const BlockContext& context) const;

 private:
  struct Attention {
    Attention(const weights::Scope& scope, std::int64_t width);
    nn::Linear q, k, v, o;
    nn::RmsNorm norm_q, norm_k;
  };
  struct Pictures {
    Pictures(const weights::Scope& scope, std::int64_t width);
    nn::Linear k, v;
    nn::RmsNorm norm_k;
  };
  struct Speech {
    Speech(const weights::Scope& scope, const Config& config);
    nn::Linear k, v;
  };
  at::Tensor self_attended(const at::Tensor& x, const BlockContext& context) const;
  at::Tensor cross_attended(const at::Tensor& x, const BlockContext& context) const;
  at::Tensor text_attended(const at::Tensor& q, const BlockContext& context) const;
  /// What each frame's tokens hear of its speech.
  at::Tensor heard(const at::Tensor& q, const BlockContext& context) const;

  std::int64_t heads_;
  weights::Block block_;
  weights::Weight modulation_;
  Attention self_, cross_;
  std::optional<Pictures> pictures_;
  std::optional<Speech> speech_;
  std::optional<nn::LayerNorm> norm3_;  // before the text
  nn::Linear mlp_in_;
  nn::ActivatedLinear mlp_out_;
};

}  // namespace distorch::models::wan
