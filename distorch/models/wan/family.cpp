#include "distorch/models/wan/family.h"

#include "distorch/models/catalog.h"
#include "distorch/models/concat_latent.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/text_recipes.h"
#include "distorch/models/wan/concat.h"
#include "distorch/models/wan/transformer.h"

namespace distorch::models::wan {

using sampling::ConditioningItem;
using sampling::EncodeContext;
using sampling::ModelInput;
using weights::Checkpoint;

namespace {

constexpr std::int64_t kSecondVaeChannels = 48;

class Wan final : public Family {
 public:
  explicit Wan(Checkpoint part) : part_(std::move(part)), config_(config_of(part_)) {
    if (second_vae()) latent_ = wan22_latent();
  }

  std::string name() const override { return second_vae() ? "Wan 2.2" : "Wan"; }
  const Checkpoint& diffusion() const override { return part_; }
  std::unique_ptr<Network> make_network() const override {
    return std::make_unique<Transformer>(config_);
  }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return sampling::flow_sampling(8.0);
  }
  const LatentFormat& latent() const override { return latent_; }
  /// Plain names with and without prefix, kohya's with underscores. Source: ComfyUI comfy/lora.py,
  /// model_lora_keys_unet.
  LoraNames lora_names(const weights::Manifest& network) const override {
    return prefixed_lora_names(network, {"", "diffusion_model.", "transformer.", "lora_unet_"});
  }
  TextRecipe text(const Checkpoint& file) const override { return checkpoint_recipe(file, "wan"); }
  VaePart vae(const Checkpoint& file) const override { return find_vae(file); }
  bool keeps_given_part_clean() const override { return second_vae(); }
  ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                    const EncodeContext& context) const override;

 private:
  bool second_vae() const { return config_.out_channels == kSecondVaeChannels; }
  /// Models that begin with a picture; those that follow a control video see it beside the latent.
  bool image_to_video() const {
    constexpr std::int64_t first_frame_channels = 36;
    return second_vae() ||
           (config_.vision_width > 0 && config_.in_channels == first_frame_channels);
  }

  Checkpoint part_;
  Config config_;
  LatentFormat latent_ = wan21_latent();
};

ModelInput Wan::encode(const InputSpec& spec, const ConditioningItem& item,
                       const EncodeContext& context) const {
  const auto& noise = context.noise;
  auto in_batch = [&](const at::Tensor& value) {
    return ModelInput{spec.kind, repeat_batch(value, noise.size(0)), {}};
  };
  if (spec.name == "context") return in_batch(item.cross_attn);
  if (spec.name == "concat")
    return {spec.kind,
            concat_of(item, context, latent_, config_.in_channels - config_.out_channels,
                      image_to_video()),
            {}};
  if (spec.name == "vision") return in_batch(tensor_of(item, "clip_vision_penultimate", noise));
  if (spec.name == "subjects") {
    auto frames = tensor_of(item, "time_dim_concat", noise);
    return in_batch(frames.defined() ? latent_.into_network(frames) : frames);
  }
  if (spec.name == "reference") {
    if (item.reference_latents.empty()) return {spec.kind, {}, {}};
    auto latent = item.reference_latents.back().to(noise.device(), at::kFloat);
    return in_batch(latent_.into_network(latent).select(2, 0));
  }
  if (spec.name == "denoise_mask" && second_vae()) return in_batch(context.denoise_mask);
  return {spec.kind, {}, {}};
}

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  auto part = with_original_names(below);
  return part.empty() ? nullptr : std::make_unique<Wan>(std::move(part));
}

}  // namespace distorch::models::wan
