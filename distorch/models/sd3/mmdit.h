#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "distorch/models/network.h"
#include "distorch/models/sd3/config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::sd3 {

/// The MM-DiT of SD3 medium, SD3.5 medium (with attention of the picture to itself) and SD3.5 large.
/// Inputs, in this order:
///
/// - "x" [B, in_channels, h, w], any h, w up to the table of positions times the patch; an odd edge
///   is filled up from the other side
/// - "timestep" [B], 0..1000
/// - "context" [B, L, text_width], text states; "vector" [B, vector_width], pooled text
/// - "control_block.N" [1 or B, tokens, width]: what a ControlNet adds to the picture after joint
///   block N; all optional
///
/// Patches::skipped knows "double_blocks.N", the joint block N.
/// Blocks: embed (all embedders and the table of positions), joint_blocks.N, final_layer.
/// Source: Esser et al. 2024; ComfyUI comfy/ldm/modules/diffusionmodules/mmdit.py.
class Mmdit : public Network {
 public:
  explicit Mmdit(const MmditConfig& config);
  ~Mmdit() override;

  const MmditConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }
  /// Error(Shape) for a latent larger than the table of positions.
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;

 private:
  struct Parts;

  MmditConfig config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::sd3
