#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>

#include "distorch/models/diffusion_model.h"
#include "distorch/models/sd/unet_config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::sd {

/// The UNet of Stable Diffusion 1.x and 2.x.
/// Blocks: time_embed, every residual block, transformer and resize in execution order, out.
/// Activations stay channels-last in the compute dtype between the first and the last convolution.
/// Source: Rombach et al. 2022; ComfyUI comfy/ldm/modules/diffusionmodules/openaimodel.py.
class UNet : public DiffusionModel {
 public:
  explicit UNet(const UNetConfig& config);
  ~UNet() override;

  const UNetConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }

  /// x [B, in_channels - concat channels, h, w], timestep [B], context [B, L, context_width],
  /// vector [B, vector_width] where the model has one. Any h, w >= 1: on the way up each level
  /// takes the size of its counterpart.
  at::Tensor apply(const DiffusionInput& input) const override;

  /// For tests: called with "time_embed", "input_blocks.N", "middle_block", "output_blocks.N" and
  /// the stage's output.
  using Probe = std::function<void(const std::string& stage, const at::Tensor& output)>;
  at::Tensor apply(const DiffusionInput& input, const Probe& probe) const;

 private:
  struct Parts;

  void check(const DiffusionInput& input) const;

  UNetConfig config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::sd
