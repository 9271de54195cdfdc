#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "distorch/models/network.h"
#include "distorch/models/z_image/config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::z_image {

/// The Next-DiT of Z-Image and Lumina Image 2.0: text and picture are refined apart, then go through
/// the layers as one sequence. Inputs, in this order:
///
/// - "x" [B, channels, h, w], any h, w; an odd edge is filled up from the other side
/// - "timestep" [B], 0..1: the noise level
/// - "context" [B, L, text_width], text states
/// - "model_patch.k" [1 or B, channels, h, w] and the number "model_patch_strength.k": what a
///   ControlNet that runs with it looks at (control_patch.h), optional
///
/// Patches::skipped knows "layers.N".
/// Blocks: embed (all embedders and pad tokens), context_refiner.N, noise_refiner.N, layers.N,
/// final_layer. Source: ComfyUI comfy/ldm/lumina/model.py, NextDiT.
class NextDit : public Network {
 public:
  explicit NextDit(const NextDitConfig& config);
  ~NextDit() override;

  const NextDitConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;

 private:
  struct Parts;

  NextDitConfig config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::z_image
