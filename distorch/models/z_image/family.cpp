#include "distorch/models/z_image/family.h"

#include "distorch/models/catalog.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/z_image/lora_names.h"
#include "distorch/models/z_image/next_dit.h"

namespace distorch::models::z_image {

using weights::Checkpoint;

namespace {

class NextDitFamily : public Family {
 public:
  NextDitFamily(Checkpoint dit, const NextDitConfig& config)
      : dit_(std::move(dit)), config_(config), latent_(flux_latent()) {}

  std::string name() const override { return config_.z_image ? "Z-Image" : "Lumina 2"; }
  const Checkpoint& diffusion() const override { return dit_; }
  std::unique_ptr<Network> make_network() const override {
    return std::make_unique<NextDit>(config_);
  }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    // What the models were trained with at 1024x1024; the network is told the noise level itself.
    return sampling::flow_sampling(config_.z_image ? 3.0 : 6.0, 1.0);
  }
  const LatentFormat& latent() const override { return latent_; }
  LoraNames lora_names(const weights::Manifest& network) const override {
    return next_dit_lora_names(config_, network);
  }
  TextRecipe text(const Checkpoint& file) const override {
    return checkpoint_recipe(file, "lumina2");
  }
  VaePart vae(const Checkpoint& file) const override { return find_vae(file); }
  sampling::ModelInput encode(const InputSpec& spec, const sampling::ConditioningItem& item,
                              const sampling::EncodeContext&) const override {
    return {spec.kind, spec.name == "context" ? item.cross_attn : at::Tensor(), {}};
  }

 private:
  Checkpoint dit_;
  NextDitConfig config_;
  LatentFormat latent_;
};

std::unique_ptr<const Family> detect_kind(const Checkpoint& below, bool z_image) {
  auto dit = with_original_names(below);
  if (dit.empty()) return nullptr;
  auto config = next_dit_config(dit);
  if (config.z_image != z_image) return nullptr;
  return std::make_unique<NextDitFamily>(std::move(dit), config);
}

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  return detect_kind(below, true);
}

std::unique_ptr<const Family> detect_lumina(const Checkpoint& below, const Checkpoint&) {
  return detect_kind(below, false);
}

}  // namespace distorch::models::z_image
