#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>

#include "distorch/models/network.h"
#include "distorch/models/sd/unet_config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::sd {

/// The UNet of Stable Diffusion 1.x, 2.x and XL.
/// Inputs, in this order:
///
/// - "x" [B, out_channels, h, w], any h, w >= 1: on the way up each level takes the size of its
///   counterpart; "timestep" [B], the number that goes into the sinusoidal embedding
/// - "context" [B, L, context_width], text states, where anything attends to a text
/// - "concat" [B, in_channels - out_channels, h, w] where it takes more than the latent (inpainting:
///   mask, masked latent)
/// - "vector" [B, vector_width] where it has a second conditioning vector
/// - "control_input.N", "control_middle", "control_output.N": what a ControlNet adds to the output
///   of input block N, to the middle's, and to the skip connection of input block N; all optional,
///   of the size of what they are added to. Source: ComfyUI, apply_control.
/// - "image_prompt.N", "image_prompt_mask.N", "image_prompt_join.N": pictures beside the text, where
///   the configuration has any (image_prompt.h)
///
/// Blocks: time_embed, every residual block, transformer and resize in execution order, out.
/// Activations stay channels-last in the compute dtype between the first and the last convolution.
/// Source: Rombach et al. 2022; ComfyUI comfy/ldm/modules/diffusionmodules/openaimodel.py.
class UNet : public Network {
 public:
  explicit UNet(const UNetConfig& config);
  ~UNet() override;

  const UNetConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }

  const InputSpecs& inputs() const override { return inputs_; }
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;

  /// For tests: called with "time_embed", "input_blocks.N", "middle_block", "output_blocks.N" and
  /// the stage's output.
  using Probe = std::function<void(const std::string& stage, const at::Tensor& output)>;
  at::Tensor apply(const Inputs& inputs, const Patches& patches, const Probe& probe) const;

 private:
  struct Parts;

  UNetConfig config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::sd
