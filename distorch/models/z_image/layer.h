#pragma once
#include <ATen/core/Tensor.h>

#include <optional>

#include "distorch/models/z_image/config.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/qkv.h"
#include "distorch/nn/rope.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::z_image {

/// One transformer layer over tokens x [B, L, width] at the positions of `rope`: attention and gated
/// feed-forward, each between two norms; with modulation it follows the noise level c [B, embedded].
/// Source: Alpha-VLLM, Lumina Image 2.0; ComfyUI comfy/ldm/lumina/model.py, JointTransformerBlock.
/// Weights: {layers, noise_refiner, context_refiner}.{i}.*
class Layer {
 public:
  Layer(const weights::Scope& scope, const NextDitConfig& config, bool modulated);
  /// c: undefined for a layer without modulation.
  at::Tensor forward(const at::Tensor& x, const nn::RopeTable& rope, const at::Tensor& c) const;

 private:
  at::Tensor attend(const at::Tensor& x, const nn::RopeTable& rope) const;
  at::Tensor feed_forward(const at::Tensor& x) const;

  weights::Block block_;
  nn::QkvProjection qkv_;
  nn::Linear out_;
  nn::RmsNorm norm_q_, norm_k_;
  nn::Linear w1_, w2_, w3_;
  nn::RmsNorm attention_norm1_, attention_norm2_, ffn_norm1_, ffn_norm2_;
  std::optional<nn::Linear> modulation_;
};

}  // namespace distorch::models::z_image
