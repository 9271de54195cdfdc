#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "distorch/models/wan/block.h"

/// VACE: layers that look at control frames beside the video and add what they see to it. Source:
/// VACE (Jiang et al. 2025); ComfyUI comfy/ldm/wan/model.py, VaceWanModel.
namespace distorch::models::wan {

/// One such layer. One weights::Block.
class VaceBlock {
 public:
  /// The first one begins with the video's own tokens.
  VaceBlock(const weights::Scope& scope, const Config& config, bool first);
  struct State {
    at::Tensor x;         // [B, L, width], the video
    at::Tensor contexts;  // [N, B, L, width], each control's tokens
  };
  /// `start` [B, L, width]: the video's tokens before the first layer; `strengths` [B, N].
  State forward(const State& state, const at::Tensor& start, const at::Tensor& strengths,
                const BlockContext& context) const;

 private:
  weights::Block block_;
  VideoBlock layer_;
  std::optional<nn::Linear> before_;
  nn::Linear after_;
};

/// All of them, between the layers of the video. Blocks: "vace in" (the controls' patches), then
/// each layer.
class Vace {
 public:
  Vace(const weights::Scope& root, const Config& config);

  /// What a call carries from layer to layer.
  struct Run {
    at::Tensor start, contexts, strengths;
  };
  /// controls [B, N, channels, T, h, w], the latent's T, h and w; strengths [B, N]; x: the video's
  /// tokens before the first layer. Error(Shape) where the sizes differ from `latent`'s.
  Run begin(const at::Tensor& x, const at::Tensor& controls, const at::Tensor& strengths,
            at::IntArrayRef latent) const;
  /// x behind the video's layer `layer`.
  at::Tensor after(std::int64_t layer, const at::Tensor& x, Run& run,
                   const BlockContext& context) const;

 private:
  std::int64_t every_;  // layers of the video to one of these
  weights::Block block_;
  weights::Weight patch_, patch_bias_;
  std::vector<VaceBlock> layers_;
};

}  // namespace distorch::models::wan
