#include "distorch/models/sd1/family.h"

#include "distorch/models/clip/recipes.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/sd/unet_family.h"

namespace distorch::models::sd1 {

using weights::Checkpoint;

namespace {

class Sd1 : public sd::UNetFamily {
 public:
  explicit Sd1(Checkpoint unet) : UNetFamily(std::move(unet), sd_latent()) {}
  std::string name() const override { return "SD1.x"; }
  TextRecipe text(const Checkpoint& file) const override {
    return clip::single_recipe(clip::text_part(file), clip::TextKind::ClipL);
  }
};

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  auto unet = sd::unet_tensors(below);
  if (unet.empty() || unet.has("label_emb.0.0.weight") || sd::has_linear_projection(unet) != false)
    return nullptr;
  return std::make_unique<Sd1>(std::move(unet));
}

}  // namespace distorch::models::sd1
