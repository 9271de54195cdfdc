#pragma once
#include <memory>

#include "distorch/models/control/borrowing.h"
#include "distorch/models/qwen_image/config.h"

namespace distorch::models::qwen_image {

/// Alibaba's "Fun" ControlNets for Qwen-Image: blocks like the transformer's, beside its own embedded
/// tokens, whose embedding is the model's; every twelfth block of the model gets the residual of one.
/// The hint is a latent [B, C, T, h, w] as the VAE gives it; the mask and the picture to fill in that
/// these networks also know are 0. Blocks: "in", "hint", and by turns a joint block and its matrix.
/// Source: ComfyUI comfy/ldm/qwen_image/controlnet.py, QwenImageFunControlNetModel.
class FunControlNet final : public control::ControlNetwork, public control::Prepared {
 public:
  FunControlNet(const Config& config, std::int64_t hint_width);
  ~FunControlNet() override;

  weights::Manifest& manifest() override { return manifest_; }
  control::HintFormat hint() const override;
  control::Preparation preparation() const override;
  const std::vector<control::Place>& places() const override { return places_; }
  Inputs encode(const at::Tensor& hint, std::optional<int> type) const override;
  const InputSpecs& inputs() const override { return inputs_; }
  /// [blocks, B, image tokens, width].
  at::Tensor apply(const Inputs& inputs) const override;
  Inputs residuals(const at::Tensor& packed, at::IntArrayRef x) const override;

 private:
  struct Parts;

  Config config_;
  std::int64_t hint_width_;  // of a token
  InputSpecs inputs_;
  std::vector<control::Place> places_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

/// Whether a file holds one, or tensors of fun_control_over() are one.
bool is_fun_control_net(const weights::Checkpoint& file);
/// Its tensors with those that it has from the model. Error(Usage) naming both files where the model
/// is no Qwen-Image of that width.
control::Merged fun_control_over(const weights::Checkpoint& file, const weights::Checkpoint& model);
std::unique_ptr<control::ControlNetwork> make_fun_control_net(const weights::Checkpoint& part);

}  // namespace distorch::models::qwen_image
