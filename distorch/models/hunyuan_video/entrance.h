#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "distorch/models/hunyuan_video/config.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/qkv.h"
#include "distorch/weights/manifest.h"

/// Letters: B batch, Li video tokens, Lt text tokens, D hidden width, V noise levels (2 where frames
/// that are given have one of their own).
namespace distorch::models::hunyuan_video {

/// Two layers with SiLU between them.
struct Embedder {
  Embedder(const weights::Scope& scope, std::int64_t in, std::int64_t out)
      : in_layer(scope / "in_layer", in, out), out_layer(scope / "out_layer", out, out) {}
  at::Tensor operator()(const at::Tensor& x) const;
  nn::Linear in_layer, out_layer;
};

/// What the first layers take; undefined tensors are absent.
struct EntranceInputs {
  at::Tensor tokens;         // [B, Li, patch · channels]
  at::Tensor timestep;       // [B], 0 .. 1000
  at::Tensor given;          // [B], the same of frames that are given
  at::Tensor text;           // [B, Lt, text width]
  at::Tensor vector;         // [B, vector width], the pooled text
  at::Tensor guidance;       // [B]
  bool guides_given = true;  // frames that are given are told the guidance too
};

/// The first layers. One weights::Block.
class Entrance {
 public:
  Entrance(const weights::Scope& scope, const Config& config);

  struct Result {
    at::Tensor img, txt;  // [B, Li, D], [B, Lt, D]
    at::Tensor vec;       // [B, V, D], what the blocks are modulated by
    at::Tensor refining;  // [B, D], what the text's own blocks are gated by
  };
  Result forward(const EntranceInputs& inputs) const;
  /// Result::vec at each of `timesteps`, without given frames.
  weights::Tensors levels(const weights::Tensors& timesteps, const at::Tensor& vector,
                          const at::Tensor& guidance) const;

 private:
  Result made_of(const EntranceInputs& inputs) const;
  at::Tensor vec(const EntranceInputs& inputs) const;
  static at::Tensor guided(const at::Tensor& vec, const at::Tensor& guidance, bool given);

  weights::Block block_;
  weights::Weight patch_, patch_bias_;
  nn::Linear text_;
  Embedder time_, text_time_, text_mean_;
  std::optional<Embedder> vector_, guidance_;
};

/// A block of text alone: self-attention and an MLP, each behind a gate that follows the noise level
/// and the text. One weights::Block. Source: ComfyUI comfy/ldm/hunyuan_video/model.py,
/// TokenRefinerBlock.
class RefinerBlock {
 public:
  RefinerBlock(const weights::Scope& scope, const Config& config);
  /// txt [B, Lt, D]; mask [B, 1, 1, Lt] added to scores, undefined: none.
  at::Tensor forward(const at::Tensor& txt, const at::Tensor& refining,
                     const at::Tensor& mask) const;

 private:
  weights::Block block_;
  nn::Linear gates_;
  nn::LayerNorm norm1_;
  nn::QkvProjection qkv_;
  nn::Linear out_;
  nn::LayerNorm norm2_;
  nn::Linear mlp_in_, mlp_out_;
};

}  // namespace distorch::models::hunyuan_video
