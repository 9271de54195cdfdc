#pragma once
#include <memory>

#include "distorch/models/control/borrowing.h"
#include "distorch/models/sd3/config.h"

namespace distorch::models::sd3 {

/// Stability's ControlNets for SD3.5 large (blur, canny, depth): each block works on the embedded
/// latents of picture and hint alone, without text, and what it makes of them goes to neighbouring
/// blocks of the model. The pooled text goes through the model's own embedder first, whose weights
/// the file has not. The hint is a latent [B, C, h, w] as the VAE gives it. Blocks: embed, hint, and
/// by turns a transformer block and its matrix. Source: ComfyUI comfy/cldm/dit_embedder.py.
class LargeControlNet final : public control::ControlNetwork, public control::Prepared {
 public:
  /// What the picture shows, as the file says it.
  enum class Kind { Blur = 0, Canny = 1, Depth = 2 };
  LargeControlNet(const MmditConfig& config, Kind kind);
  ~LargeControlNet() override;

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

  /// Blocks that get the same residual, of a model as deep as it has heads.
  std::int64_t repeats() const;

  MmditConfig config_;
  Kind kind_;
  InputSpecs inputs_;
  std::vector<control::Place> places_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

/// Whether a file holds one, or tensors of large_control_over() are one.
bool is_large_control_net(const weights::Checkpoint& file);
/// Its tensors under the network's names with those that it has from the model. Error(Usage) naming
/// both files where the model is no SD3 of that width.
control::Merged large_control_over(const weights::Checkpoint& file,
                                   const weights::Checkpoint& model);
std::unique_ptr<control::ControlNetwork> make_large_control_net(const weights::Checkpoint& part);

}  // namespace distorch::models::sd3
