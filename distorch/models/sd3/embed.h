#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/models/sd3/config.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/linear.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::sd3 {

/// Tokens each way of a latent [B, C, h, w]: h and w over the patch, rounded up.
struct TokenGrid {
  TokenGrid(const at::Tensor& latent, const MmditConfig& config)
      : height((latent.size(2) + config.patch - 1) / config.patch),
        width((latent.size(3) + config.patch - 1) / config.patch) {}
  std::int64_t height, width;
};

/// Two layers with SiLU between them: x [B, in] -> [B, width].
class VectorEmbedder {
 public:
  VectorEmbedder(const weights::Scope& scope, std::int64_t in, std::int64_t width)
      : first_(scope / "mlp" / 0, in, width), second_(scope / "mlp" / 2, width, width) {}
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  nn::Linear first_, second_;
};

/// Latent, timestep and texts as the joint blocks take them: one block of weights.
/// Weights: x_embedder, pos_embed, t_embedder, y_embedder, context_embedder.
class Embedders {
 public:
  Embedders(const weights::Scope& scope, const MmditConfig& config);
  struct Embedded {
    at::Tensor image;  // [B, tokens, width]
    at::Tensor c;      // [B, width], SiLU applied
    at::Tensor text;   // [B, L, width]
  };
  /// Error(Shape) for a latent larger than the table of positions.
  Embedded forward(const at::Tensor& latent, const at::Tensor& timestep, const at::Tensor& vector,
                   const at::Tensor& context) const;

 private:
  at::Tensor positions(const TokenGrid& grid, const at::Tensor& like) const;

  MmditConfig config_;
  weights::Block block_;
  nn::Conv2d patches_;
  weights::Weight positions_;
  VectorEmbedder time_, vector_;
  nn::Linear text_;
};

/// The latent of the picture that steers, added to a picture's tokens. A block of its own. Weights:
/// pos_embed_input.
class HintTokens {
 public:
  HintTokens(const weights::Scope& scope, const MmditConfig& config, std::int64_t channels);
  /// image [B, tokens, width], hint [B, channels, h, w] -> as image.
  at::Tensor forward(const at::Tensor& image, const at::Tensor& hint) const;

 private:
  weights::Block block_;
  std::int64_t patch_;
  nn::Conv2d conv_;
};

}  // namespace distorch::models::sd3
