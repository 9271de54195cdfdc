#include "distorch/models/sd3/family.h"

#include "distorch/models/catalog.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/sd3/lora_names.h"
#include "distorch/models/sd3/mmdit.h"

namespace distorch::models::sd3 {

using weights::Checkpoint;

namespace {

constexpr double kShift = 3.0;  // what the models were trained with at 1024x1024

class Sd3 : public Family {
 public:
  explicit Sd3(Checkpoint mmdit)
      : mmdit_(std::move(mmdit)), config_(mmdit_config(mmdit_)), latent_(sd3_latent()) {}

  std::string name() const override { return "SD3"; }
  const Checkpoint& diffusion() const override { return mmdit_; }
  std::unique_ptr<Network> make_network() const override {
    return std::make_unique<Mmdit>(config_);
  }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return sampling::flow_sampling(kShift);
  }
  const LatentFormat& latent() const override { return latent_; }
  LoraNames lora_names(const weights::Manifest& network) const override {
    return mmdit_lora_names(config_, network);
  }
  TextRecipe text(const Checkpoint& file) const override { return checkpoint_recipe(file, "sd3"); }
  VaePart vae(const Checkpoint& file) const override { return find_vae(file); }
  sampling::ModelInput encode(const InputSpec& spec, const sampling::ConditioningItem& item,
                              const sampling::EncodeContext&) const override {
    if (spec.name == "context") return {spec.kind, item.cross_attn, {}};
    if (spec.name == "vector") return {spec.kind, item.pooled_output, {}};
    return {spec.kind, {}, {}};
  }

 private:
  Checkpoint mmdit_;
  MmditConfig config_;
  LatentFormat latent_;
};

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  auto mmdit = with_original_names(below);
  return mmdit.empty() ? nullptr : std::make_unique<Sd3>(std::move(mmdit));
}

}  // namespace distorch::models::sd3
