#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/models/vision_tokens.h"
#include "distorch/models/wan/config.h"
#include "distorch/nn/linear.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::wan {

/// Everything before the blocks: what tokens, the noise level, the text and what a picture encoder
/// saw become in the blocks' width. One weights::Block. Source: ComfyUI comfy/ldm/wan/model.py,
/// WanModel.
class Entrance {
 public:
  Entrance(const weights::Scope& scope, const Config& config);

  struct Result {
    at::Tensor tokens;  // [B, L, width], those of `before` first
    at::Tensor time;    // [B, 1 or T, width]
    at::Tensor parts;   // [B, 1 or T, 6 · width]
    at::Tensor text;    // [B, n, width]
    at::Tensor vision;  // [B, m, width]; undefined where nothing was seen
  };
  /// tokens [B, L, 4 · channels] of to_tokens(), timesteps [B, 1 or T], context [B, n, text width],
  /// states of a picture encoder and a reference's tokens, which may be undefined.
  Result forward(const at::Tensor& tokens, const at::Tensor& timesteps, const at::Tensor& context,
                 const at::Tensor& seen = {}, const at::Tensor& before = {}) const;

 private:
  struct Vision {
    Vision(const weights::Scope& scope, const Config& config);
    at::Tensor operator()(at::Tensor states) const;
    VisionTokens tokens;
    weights::Weight places;
  };

  weights::Block block_;
  weights::Weight patch_, patch_bias_;
  nn::Linear text1_, text2_, time1_, time2_, projection_;
  std::int64_t sinusoids_;
  std::optional<Vision> vision_;
  weights::Weight reference_, reference_bias_;
};

}  // namespace distorch::models::wan
