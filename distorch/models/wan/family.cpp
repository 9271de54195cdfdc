#include "distorch/models/wan/family.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/concat_latent.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/tensor_size.h"
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

/// Control frames of a latent [B, N, 16 · n, T, h, w] and their masks, as one input; where none are
/// given, a blank video that is made anew everywhere. Source: ComfyUI comfy/model_base.py,
/// WAN21_Vace.extra_conds.
at::Tensor vace_of(const ConditioningItem& item, const EncodeContext& context,
                   const LatentFormat& format, std::int64_t channels) {
  const auto& noise = context.noise;
  auto with_channels = [&](std::int64_t count) {
    auto sizes = noise.sizes().vec();
    sizes[1] = count;
    sizes.insert(sizes.begin() + 1, 1);
    return sizes;
  };
  auto frames = tensor_of(item, "vace_frames", noise);
  if (!frames.defined())
    frames = at::zeros(with_channels(2 * format.channels), noise.options().dtype(at::kFloat));
  std::vector<at::Tensor> parts;
  for (const auto& part : frames.split(format.channels, 2))
    parts.push_back(format.into_network(part.flatten(0, 1)).unflatten(0, part.sizes().slice(0, 2)));
  auto mask = tensor_of(item, "vace_mask", noise);
  if (!mask.defined()) {
    auto sizes = frames.sizes().vec();
    sizes[2] = channels - frames.size(2);
    mask = at::ones(sizes, frames.options());
  }
  parts.push_back(mask);
  return at::cat(parts, 2);
}

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
  /// model_lora_keys_unet; ComfyUI-WanVideoWrapper, standardize_lora_key_format.
  LoraNames lora_names(const weights::Manifest& network) const override {
    return prefixed_lora_names(network, {"", "diffusion_model.", "transformer.", "pipe.dit.",
                                         "lora_unet_", "lora_unet__", "lycoris_"});
  }
  TextRecipe text(const Checkpoint& file) const override { return checkpoint_recipe(file, "wan"); }
  VaePart vae(const Checkpoint& file) const override { return find_vae(file); }
  bool keeps_given_part_clean() const override { return second_vae(); }
  ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                    const EncodeContext& context) const override;

 private:
  bool second_vae() const { return config_.out_channels == kSecondVaeChannels; }
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
                      config_.image_to_video()),
            {}};
  if (spec.name == "vision") return in_batch(tensor_of(item, "clip_vision_penultimate", noise));
  auto latent_named = [&](const char* name) {
    auto latent = tensor_of(item, name, noise);
    return in_batch(latent.defined() ? latent_.into_network(latent) : latent);
  };
  if (spec.name == "subjects") return latent_named("time_dim_concat");
  if (spec.name == "pose") return latent_named("pose_video_latent");
  if (spec.name == "control") return latent_named("control_video");
  if (spec.name == "motion") return latent_named("reference_motion");
  if (spec.name == "face") return in_batch(tensor_of(item, "face_video_pixels", noise));
  if (spec.name == "audio") return in_batch(tensor_of(item, "audio_embed", noise));
  if (spec.name == "reference_frames") {
    if (item.reference_latents.empty()) return {spec.kind, {}, {}};
    auto latent = item.reference_latents.back().to(noise.device(), at::kFloat);
    return in_batch(latent_.into_network(latent));
  }
  if (spec.name == "reference") {
    if (item.reference_latents.empty()) return {spec.kind, {}, {}};
    auto latent = item.reference_latents.back().to(noise.device(), at::kFloat);
    return in_batch(latent_.into_network(latent).select(2, 0));
  }
  if (spec.name == "vace") return in_batch(vace_of(item, context, latent_, config_.vace_channels));
  if (spec.name == "vace_strength") {
    auto strengths = tensor_of(item, "vace_strength", noise);
    if (strengths.defined()) return in_batch(strengths);
    auto frames = tensor_of(item, "vace_frames", noise);
    return in_batch(
        at::ones({1, frames.defined() ? frames.size(1) : 1}, noise.options().dtype(at::kFloat)));
  }
  if (spec.name == "camera") return in_batch(tensor_of(item, "camera_conditions", noise));
  if (spec.name == "denoise_mask" && second_vae()) return in_batch(context.denoise_mask);
  return {spec.kind, {}, {}};
}

}  // namespace

void add_speech(Checkpoint& model, const Checkpoint& speech) {
  const auto config = config_of(model);
  const auto width = size_of(speech, "blocks.0.cross_attn.k_proj.weight", 1);
  const std::vector<std::int64_t> wanted = {config.width, width};
  for (std::int64_t i = 0; i < config.layers; ++i)
    for (const char* part : {"k_proj", "v_proj"}) {
      const auto name = fmt::format("blocks.{}.cross_attn.{}.weight", i, part);
      const auto* stored = speech.find(name);
      if (!stored || stored->shape != wanted)
        throw Error(ErrorKind::Shape, speech.path(),
                    fmt::format("does not fit {}, which has {} layers of width {}: '{}' is {}",
                                model.path(), config.layers, config.width, name,
                                stored ? c10::str(at::IntArrayRef(stored->shape)) : "missing"));
      model.add(name, *stored);
    }
}

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  auto part = with_original_names(below);
  return part.empty() ? nullptr : std::make_unique<Wan>(std::move(part));
}

}  // namespace distorch::models::wan
