#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/models/z_image/config.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::z_image {

/// How many tokens text and picture have.
struct Lengths {
  Lengths(const at::Tensor& latent, const at::Tensor& context, const NextDitConfig& config);
  std::int64_t height, width;  // of the picture, in tokens
  std::int64_t text, image;    // with those that fill them up
};

/// Where the tokens are, [1, text + image, 3]: the text at indices 1, 2, ..., the picture's rows and
/// columns at one index behind it; what fills the picture up lies at the origin.
at::Tensor positions(const Lengths& lengths, at::Device device);

/// [B, C, h, w] -> [B, tokens, patch · patch · C], whole patches.
at::Tensor to_patches(const at::Tensor& latent, std::int64_t patch);

/// Latent, text and noise level as the layers take them: one block of weights.
/// Weights: x_embedder, x_pad_token, cap_embedder, cap_pad_token, t_embedder.
class Embedders {
 public:
  Embedders(const weights::Scope& scope, const NextDitConfig& config);
  struct Embedded {
    at::Tensor image, text;  // [B, tokens, width]
    at::Tensor level;        // [B, embedded_width]: the noise level
    at::Tensor activated;    // SiLU of that
  };
  Embedded forward(const at::Tensor& latent, const at::Tensor& timestep, const at::Tensor& context,
                   const Lengths& lengths) const;

 private:
  NextDitConfig config_;
  weights::Block block_;
  nn::Linear patches_;
  nn::RmsNorm text_norm_;
  nn::Linear text_, time_in_, time_out_;
  weights::Weight image_pad_, text_pad_;
};

}  // namespace distorch::models::z_image
