#include "distorch/models/qwen_image/family.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/concat_latent.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/qwen_image/transformer.h"
#include "distorch/models/text_recipes.h"

namespace distorch::models::qwen_image {

using sampling::ConditioningItem;
using sampling::EncodeContext;
using sampling::ModelInput;
using weights::Checkpoint;

namespace {

ReferenceMethod method_called(const std::string& name) {
  if (name == "index") return ReferenceMethod::Index;
  if (name == "negative_index") return ReferenceMethod::NegativeIndex;
  if (name == "index_timestep_zero") return ReferenceMethod::IndexTimestepZero;
  // Every other name ("offset", "uxo", ...) means this one, as in ComfyUI.
  return ReferenceMethod::Offset;
}

class QwenImage final : public Family {
 public:
  explicit QwenImage(Checkpoint part) : part_(std::move(part)), config_(config_of(part_)) {}

  std::string name() const override { return "Qwen-Image"; }
  const Checkpoint& diffusion() const override { return part_; }
  std::unique_ptr<Network> make_network() const override {
    return std::make_unique<Transformer>(config_);
  }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return sampling::flux_sampling(1.15);
  }
  const LatentFormat& latent() const override { return latent_; }
  /// Plain names with and without "transformer." and "diffusion_model.", kohya's with underscores,
  /// SimpleTuner's. Source: ComfyUI comfy/lora.py, model_lora_keys_unet.
  LoraNames lora_names(const weights::Manifest& network) const override {
    return prefixed_lora_names(network,
                               {"", "transformer.", "diffusion_model.", "lora_unet_", "lycoris_"});
  }
  TextRecipe text(const Checkpoint& file) const override {
    return checkpoint_recipe(file, "qwen_image");
  }
  VaePart vae(const Checkpoint& file) const override { return find_vae(file); }
  ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                    const EncodeContext& context) const override;

 private:
  ModelInput reference(const InputSpec& spec, const ConditioningItem& item,
                       const EncodeContext& context, std::size_t index) const;

  Checkpoint part_;
  Config config_;
  LatentFormat latent_ = wan21_latent();
};

ModelInput QwenImage::reference(const InputSpec& spec, const ConditioningItem& item,
                                const EncodeContext& context, std::size_t index) const {
  if (index >= item.reference_latents.size()) return {spec.kind, {}, {}};
  auto latent = item.reference_latents[index].to(context.noise.device(), at::kFloat);
  if (latent.dim() == 4) latent = latent.unsqueeze(2);
  if (latent.dim() != 5 || latent.size(1) != config_.latent_channels)
    throw Error(ErrorKind::Shape, part_.path(),
                fmt::format("takes reference latents of {} channels, got {}: encode the reference "
                            "picture with the VAE of this model",
                            config_.latent_channels, latent.size(1)));
  return {spec.kind, repeat_batch(latent_.into_network(latent), context.noise.size(0)), {}};
}

ModelInput QwenImage::encode(const InputSpec& spec, const ConditioningItem& item,
                             const EncodeContext& context) const {
  if (spec.name == "context")
    return {spec.kind, repeat_batch(item.cross_attn, context.noise.size(0)), {}};
  if (spec.name == "attention_mask") {
    auto mask = item.tensors.find("attention_mask");
    if (mask == item.tensors.end()) return {spec.kind, {}, {}};
    return {spec.kind, repeat_batch(mask->second, context.noise.size(0)), {}};
  }
  if (item.reference_latents.size() > kMostReferences)
    throw Error(ErrorKind::Usage, part_.path(),
                fmt::format("takes at most {} reference pictures, got {}", kMostReferences,
                            item.reference_latents.size()));
  if (spec.name == kReferenceMethod) {
    auto text = item.texts.find("reference_latents_method");
    if (item.reference_latents.empty() || text == item.texts.end()) return {spec.kind, {}, {}};
    return {spec.kind, {}, static_cast<double>(method_called(text->second))};
  }
  for (int i = 0; i < kMostReferences; ++i)
    if (spec.name == reference_name(i))
      return reference(spec, item, context, static_cast<std::size_t>(i));
  return {spec.kind, {}, {}};
}

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  const auto* first = below.find("img_in.weight");
  constexpr std::int64_t kTokenWidth = 16 * kPatch * kPatch;
  if (!first || first->shape.size() != 2 || first->shape[1] != kTokenWidth ||
      !below.has("txt_norm.weight") || !below.has("transformer_blocks.0.img_mod.1.weight") ||
      !below.has("proj_out.weight"))
    return nullptr;
  return std::make_unique<QwenImage>(below);
}

}  // namespace distorch::models::qwen_image
