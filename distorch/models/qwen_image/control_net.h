#pragma once
#include <memory>

#include "distorch/models/control/control.h"
#include "distorch/models/qwen_image/config.h"

namespace distorch::models::qwen_image {

/// The first blocks of a Qwen-Image transformer, with the latent of a picture added to its tokens; a
/// matrix of each block's image tokens is its residual, which several neighbouring blocks of the
/// transformer of 60 get (InstantX's ControlNets: union, inpainting). The hint is a latent
/// [B, C, T, h, w] as the VAE gives it, for inpainting with a mask (1 = keep) as one more channel.
/// Blocks: "in", and by turns a joint block and its matrix. Source: ComfyUI
/// comfy/ldm/qwen_image/controlnet.py, QwenImageControlNetModel.
class ControlNet final : public control::ControlNetwork {
 public:
  explicit ControlNet(const Config& config, std::int64_t hint_channels);
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

  /// Blocks of the transformer that get the same residual.
  std::int64_t repeats() const;

  Config config_;
  std::int64_t hint_channels_;
  InputSpecs inputs_;
  std::vector<control::Place> places_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

/// Whether a file holds one.
bool is_control_net(const weights::Checkpoint& file);
std::unique_ptr<control::ControlNetwork> make_control_net(const weights::Checkpoint& part);

}  // namespace distorch::models::qwen_image
