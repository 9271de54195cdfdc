#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/models/ltxv/config.h"
#include "distorch/nn/activated_linear.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/rope.h"
#include "distorch/weights/manifest.h"

/// Letters: B batch, L video tokens, Lt text tokens, D width, H heads, N noise levels: 1, one for each
/// frame, or L where every token has its own.
namespace distorch::models::ltxv {

/// Tokens [B, L, D] with those of one noise level as a row of the batch, [B · N, L / N, D].
inline at::Tensor by_level(const at::Tensor& tokens, std::int64_t levels) {
  return tokens.reshape({tokens.size(0) * levels, -1, tokens.size(2)});
}
/// What goes with those rows, [B, N, D] -> [B · N, 1, D].
inline at::Tensor of_level(const at::Tensor& part) { return part.reshape({-1, 1, part.size(2)}); }

/// What all blocks of a call see.
struct BlockContext {
  at::Tensor time;  // [B, N, 6 · D], the noise levels' embedding
  /// Where tokens are, every head by angles of its own: [1 or B, L · H, D / H / 2].
  nn::RopeTable positions;
  at::Tensor text;  // [B, Lt, D]
  at::Tensor mask;  // [B, 1, 1, Lt], added to scores; undefined: none
};

/// One layer: video tokens attend to each other, then to the text. One weights::Block. Source:
/// LTX-Video (HaCohen et al. 2024); ComfyUI comfy/ldm/lightricks/model.py, BasicTransformerBlock.
class VideoBlock {
 public:
  VideoBlock(const weights::Scope& scope, const Config& config);
  /// x [B, L, D] -> the same. `looks_around` false: self-attention gives its values as they are.
  at::Tensor forward(const at::Tensor& x, const BlockContext& context, bool looks_around) const;

 private:
  struct Attention {
    Attention(const weights::Scope& scope, std::int64_t width);
    nn::RmsNorm q_norm, k_norm;
    nn::Linear q, k, v, out;
  };
  at::Tensor run(const at::Tensor& x, const BlockContext& context, bool looks_around) const;
  at::Tensor self_attended(const at::Tensor& x, const nn::RopeTable& positions) const;
  at::Tensor text_attended(const at::Tensor& x, const BlockContext& context) const;

  std::int64_t heads_;
  weights::Block block_;
  weights::Weight modulation_;
  Attention self_, cross_;
  nn::Linear mlp_in_;
  nn::ActivatedLinear mlp_out_;
};

/// The angles of tokens at `places` [1 or B, L, 3] (seconds, rows and columns in pixels), float32,
/// for blocks of this shape. The numbers of all heads are taken as one row: what three axes leave
/// of it at its start is not turned. Source: ComfyUI comfy/ldm/lightricks/model.py,
/// precompute_freqs_cis.
nn::RopeTable positions_table(const at::Tensor& places, const Config& config);

}  // namespace distorch::models::ltxv
