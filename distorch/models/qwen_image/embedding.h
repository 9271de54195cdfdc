#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/models/qwen_image/block.h"
#include "distorch/models/qwen_image/config.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::qwen_image {

/// What comes before the blocks: tokens of the latent and of the text in the network's width, and
/// SiLU of the timestep's embedding. One weights::Block.
class Embedding {
 public:
  /// `hint_width`: of a ControlNet's tokens of the picture that steers ("controlnet_x_embedder");
  /// 0: none.
  Embedding(const weights::Scope& scope, const Config& config, std::int64_t hint_width = 0);

  struct Embedded {
    Streams tokens;
    at::Tensor time;
  };
  /// tokens [B, L, channels·4], text [B, Lt, text_width], timesteps [B] or [2·B] from 0 to 1, hint
  /// [1 or B, L, hint_width].
  Embedded forward(const at::Tensor& tokens, const at::Tensor& text, const at::Tensor& timesteps,
                   const at::Tensor& hint = {}) const;
  /// Embedded::time of each of `timesteps`.
  weights::Tensors times(const weights::Tensors& timesteps) const;

 private:
  at::Tensor time(const at::Tensor& timesteps) const;

  weights::Block block_;
  nn::Linear time1_, time2_, image_;
  nn::RmsNorm text_norm_;
  nn::Linear text_;
  std::optional<nn::Embedding> kind_;
  std::optional<nn::Linear> hint_;
};

}  // namespace distorch::models::qwen_image
