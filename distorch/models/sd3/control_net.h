#pragma once
#include <memory>

#include "distorch/models/control/control.h"
#include "distorch/models/sd3/config.h"

namespace distorch::models::sd3 {

/// The first joint blocks of an MM-DiT with the latent of a picture added to its tokens; a matrix of
/// each block's image tokens is what so many neighbouring blocks of the model get (InstantX's
/// ControlNets for SD3 medium). The hint is a latent [B, C, h, w] as the VAE gives it, for inpainting
/// with a mask (1 = keep) as one more channel. Blocks: embed, hint, and by turns a joint block and its
/// matrix. Source: ComfyUI comfy/cldm/mmdit.py.
class ControlNet final : public control::ControlNetwork {
 public:
  ControlNet(const MmditConfig& config, std::int64_t hint_channels);
  ~ControlNet() override;

  weights::Manifest& manifest() override { return manifest_; }
  control::HintFormat hint() const override;
  const std::vector<control::Place>& places() const override { return places_; }
  Inputs encode(const at::Tensor& hint, std::optional<int> type) const override;
  const InputSpecs& inputs() const override { return inputs_; }
  /// [blocks, B, image tokens, width].
  at::Tensor apply(const Inputs& inputs) const override;
  Inputs residuals(const at::Tensor& packed, at::IntArrayRef x) const override;

 private:
  struct Parts;

  /// Blocks that get the same residual, of a model as deep as it has heads.
  std::int64_t repeats() const { return config_.heads() / config_.blocks; }

  MmditConfig config_;
  std::int64_t hint_channels_;
  InputSpecs inputs_;
  std::vector<control::Place> places_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

/// Whether tensors of with_original_control_names() are one.
bool is_control_net(const weights::Checkpoint& part);
std::unique_ptr<control::ControlNetwork> make_control_net(const weights::Checkpoint& part);

}  // namespace distorch::models::sd3
