#pragma once
#include "distorch/models/family.h"
#include "distorch/models/sd/unet_config.h"

namespace distorch::models::sd {

/// What all families with a UNet share: its names, its further channels (inpainting, editing), the
/// autoencoder of their time. A family says how it is told apart and what it does otherwise.
class UNetFamily : public Family {
 public:
  const weights::Checkpoint& diffusion() const override { return unet_; }
  const UNetConfig& config() const { return config_; }
  std::unique_ptr<Network> make_network() const override;
  std::shared_ptr<const sampling::ModelSampling> sampling() const override;
  const LatentFormat& latent() const override { return latent_; }
  LoraNames lora_names(const weights::Manifest& network) const override;
  VaePart vae(const weights::Checkpoint& file) const override;
  /// "context" and "concat"; Error(Usage) for a number of further channels that nobody knows.
  sampling::ModelInput encode(const InputSpec& spec, const sampling::ConditioningItem& item,
                              const sampling::EncodeContext& context) const override;

 protected:
  /// `unet` has original names.
  UNetFamily(weights::Checkpoint unet, LatentFormat latent);

  weights::Checkpoint unet_;
  UNetConfig config_;
  LatentFormat latent_;
};

/// The tensors under original names where they are a UNet's (original or diffusers names); else
/// empty.
weights::Checkpoint unet_tensors(const weights::Checkpoint& below);
/// Whether transformers stand between matrices (SD 2.x, SDXL) or 1x1 convolutions (SD 1.x); nothing
/// where there is none.
std::optional<bool> has_linear_projection(const weights::Checkpoint& unet);

}  // namespace distorch::models::sd
