#include "distorch/models/sd2/unclip.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "distorch/base/error.h"
#include "distorch/models/clip/recipes.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/sd/unet_family.h"
#include "distorch/nn/embedding.h"

namespace distorch::models::sd2 {

using at::Tensor;
using weights::Checkpoint;

namespace {

constexpr int kLevels = 1000;                 // of noise
constexpr double kMergedAugmentation = 0.05;  // of the sum of several pictures

/// What is left of a picture at a noise level: the product of 1 - beta up to it, of the cosine
/// schedule with betas of at most 0.999.
double kept_at(int level) {
  auto curve = [](double t) {
    auto c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
    return c * c;
  };
  double kept = 1;
  for (int i = 0; i <= level; ++i)
    kept *= 1 - std::min(1 - curve(static_cast<double>(i + 1) / kLevels) /
                                 curve(static_cast<double>(i) / kLevels),
                         0.999);
  return kept;
}

/// embeds [1, width] noised, and the embedding of the level: [1, 2·width].
Tensor augmented(const Tensor& embeds, double augmentation, std::uint64_t seed) {
  auto level = static_cast<int>(std::nearbyint((kLevels - 1) * augmentation));
  auto kept = kept_at(level);
  auto noise = at::randn(embeds.sizes(), at::detail::createCPUGenerator(seed),
                         at::TensorOptions(at::kFloat));
  auto picture = embeds * static_cast<float>(std::sqrt(kept)) +
                 noise * static_cast<float>(std::sqrt(1 - kept));
  auto time = nn::timestep_embedding(at::tensor({static_cast<float>(level)}), embeds.size(1));
  return at::cat({picture, time}, 1);
}

std::vector<UnclipPicture> pictures_of(const sampling::ConditioningItem& item) {
  std::vector<UnclipPicture> pictures;
  for (int i = 0;; ++i) {
    auto name = fmt::format("unclip.{}", i);
    auto found = item.tensors.find(name);
    if (found == item.tensors.end()) return pictures;
    pictures.push_back({found->second, item.numbers.at(name + ".strength"),
                        item.numbers.at(name + ".noise_augmentation")});
  }
}

class Unclip : public sd::UNetFamily {
 public:
  Unclip(Checkpoint unet, std::int64_t width)
      : UNetFamily(std::move(unet), sd_latent()), width_(width) {}
  std::string name() const override { return "SD2.1 unCLIP"; }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return sampling::discrete_sampling({.prediction = sampling::Prediction::V});
  }
  TextRecipe text(const Checkpoint& file) const override {
    return clip::single_recipe(clip::text_part(file), clip::TextKind::ClipH);
  }
  sampling::ModelInput encode(const InputSpec& spec, const sampling::ConditioningItem& item,
                              const sampling::EncodeContext& context) const override {
    if (spec.name != "vector") return UNetFamily::encode(spec, item, context);
    auto pictures = pictures_of(item);
    for (const auto& picture : pictures)
      if (picture.embeds.dim() != 2 || picture.embeds.size(1) != width_)
        throw Error(ErrorKind::Shape, "unCLIP conditioning",
                    fmt::format("the model takes pictures as {} numbers, the picture encoder gives "
                                "{}: take the one of its checkpoint",
                                width_, picture.embeds.size(-1)));
    // Ten less than the sampler's seed, as the reference has it; around zero it wraps.
    return {
        spec.kind,
        pictures.empty() ? at::zeros({1, 2 * width_}) : unclip_vector(pictures, context.seed - 10),
        {}};
  }

 private:
  std::int64_t width_;  // of a picture's embedding
};

}  // namespace

Tensor unclip_vector(const std::vector<UnclipPicture>& pictures, std::uint64_t seed) {
  std::vector<Tensor> vectors;
  for (const auto& picture : pictures)
    for (const auto& embeds : picture.embeds.to(at::kCPU, at::kFloat).split(1))
      vectors.push_back(augmented(embeds, picture.noise_augmentation, seed) * picture.strength);
  if (vectors.size() == 1) return vectors[0];
  auto sum = at::stack(vectors).sum(0);
  // The reference draws this noise from the generator as it stands: it goes on behind the last one.
  auto generator = at::detail::createCPUGenerator(seed);
  auto width = sum.size(1) / 2;
  at::randn({1, width}, generator, at::TensorOptions(at::kFloat));
  auto level = static_cast<int>(std::nearbyint((kLevels - 1) * kMergedAugmentation));
  auto kept = kept_at(level);
  auto noise = at::randn({1, width}, generator, at::TensorOptions(at::kFloat));
  auto picture = sum.narrow(1, 0, width) * static_cast<float>(std::sqrt(kept)) +
                 noise * static_cast<float>(std::sqrt(1 - kept));
  auto time = nn::timestep_embedding(at::tensor({static_cast<float>(level)}), width);
  return at::cat({picture, time}, 1);
}

std::unique_ptr<const Family> detect_unclip(const Checkpoint& below, const Checkpoint&) {
  constexpr std::int64_t clip_l = 768, clip_h = 1024;
  auto unet = sd::unet_tensors(below);
  const auto* vector = unet.find("label_emb.0.0.weight");
  if (!vector || vector->shape.size() != 2 || sd::has_linear_projection(unet) != true)
    return nullptr;
  auto width = vector->shape[1] / 2;
  if (vector->shape[1] % 2 != 0 || (width != clip_l && width != clip_h)) return nullptr;
  return std::make_unique<Unclip>(std::move(unet), width);
}

}  // namespace distorch::models::sd2
