#include "distorch/models/sd2/family.h"

#include "distorch/models/clip/recipes.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/sd/unet_family.h"

namespace distorch::models::sd2 {

using weights::Checkpoint;

namespace {

class Sd2 : public sd::UNetFamily {
 public:
  explicit Sd2(Checkpoint unet) : UNetFamily(std::move(unet), sd_latent()) {}
  std::string name() const override { return "SD2.x"; }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    // Only the text-to-image models come in two kinds.
    bool plain = config_.in_channels == config_.out_channels;
    bool velocity = plain && sd::predicts_velocity(unet_);
    return sampling::discrete_sampling(
        {.prediction = velocity ? sampling::Prediction::V : sampling::Prediction::Eps});
  }
  TextRecipe text(const Checkpoint& file) const override {
    return clip::single_recipe(clip::text_part(file), clip::TextKind::ClipH);
  }
};

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  auto unet = sd::unet_tensors(below);
  if (unet.empty() || unet.has_prefix("label_emb.") || sd::has_linear_projection(unet) != true)
    return nullptr;
  return std::make_unique<Sd2>(std::move(unet));
}

}  // namespace distorch::models::sd2
