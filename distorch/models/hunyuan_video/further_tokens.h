#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/models/hunyuan_video/config.h"
#include "distorch/models/vision_tokens.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

/// Letters: B batch, Lt text tokens, Lg tokens of words that the video shows, Lv of what a picture
/// encoder saw, D hidden width.
namespace distorch::models::hunyuan_video {

/// States of words that the video shows (ByT5's), in the blocks' width. Declares `layernorm`, `fc1`,
/// `fc2`, `fc3`.
struct GlyphTokens {
  GlyphTokens(const weights::Scope& scope, const Config& config);
  at::Tensor operator()(const at::Tensor& states) const;
  nn::LayerNorm norm;
  nn::Linear first, second, third;
};

/// What HunyuanVideo 1.5 attends to beside the text, in front of it: what a picture encoder saw, then
/// words that the video shows. Each kind of tokens carries a mark of its own. One weights::Block.
/// Source: ComfyUI comfy/ldm/hunyuan_video/model.py, HunyuanVideo.forward_orig.
class FurtherTokens {
 public:
  FurtherTokens(const weights::Scope& scope, const Config& config);
  /// txt [B, Lt, D] as its own blocks leave it, glyphs [B, Lg, glyph width] and vision
  /// [B, Lv, vision width] or undefined -> [B, Lv + Lg + Lt, D].
  at::Tensor before(const at::Tensor& txt, const at::Tensor& glyphs,
                    const at::Tensor& vision) const;

 private:
  weights::Block block_;
  std::optional<GlyphTokens> glyphs_;
  VisionTokens vision_;
  std::optional<nn::Embedding> marks_;
};

}  // namespace distorch::models::hunyuan_video
