#include "distorch/models/hunyuan_video/family.h"

#include <fmt/format.h>

#include <array>
#include <string_view>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/concat_latent.h"
#include "distorch/models/hunyuan_video/transformer.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/text_recipes.h"

namespace distorch::models::hunyuan_video {

using at::Tensor;
using sampling::ConditioningItem;
using sampling::EncodeContext;
using sampling::ModelInput;
using weights::Checkpoint;

namespace {

constexpr double kGuidance = 6.0;  // where a conditioning says nothing
constexpr double kShift = 7.0;

/// x [B, C, T, h, w], every frame in the noise's height and width, in its batch; frames that are
/// missing are `filling`.
Tensor fitted(const Tensor& x, const Tensor& noise, double filling) {
  auto batch = x.size(0), frames = x.size(2);
  auto pictures = fit_size(x.transpose(1, 2).flatten(0, 1), noise.size(3), noise.size(4));
  auto all = pictures.unflatten(0, {batch, frames}).transpose(1, 2);
  if (auto missing = noise.size(2) - frames; missing > 0)
    all = at::constant_pad_nd(all, {0, 0, 0, 0, 0, missing}, filling);
  return fit_batch(all.narrow(2, 0, noise.size(2)), noise.size(0));
}

/// Channels beside the latent: frames that are given, and where there is one more, 1 where they are.
/// Source: ComfyUI comfy/model_base.py, BaseModel.concat_cond.
Tensor concat_of(const ConditioningItem& item, const EncodeContext& context,
                 const LatentFormat& format, std::int64_t channels) {
  const auto& noise = context.noise;
  auto given = tensor_of(item, "concat_latent_image", noise);
  if (given.defined() && (given.dim() != 5 || given.size(1) != format.channels))
    throw Error(ErrorKind::Shape, "concat_latent_image",
                fmt::format("must be a latent of {} channels with frames, got {}: make the "
                            "conditioning with the VAE of HunyuanVideo",
                            format.channels, c10::str(given.sizes())));
  auto image = given.defined() ? format.into_network(given) : context.latent_image;
  if (!image.defined()) image = at::zeros_like(noise);
  image = fitted(image.to(noise.device(), at::kFloat), noise, 0);
  if (channels == format.channels) return image;
  auto mask = tensor_of(item, "concat_mask", noise);
  if (!mask.defined()) mask = context.denoise_mask;
  if (!mask.defined()) return at::cat({image, at::zeros_like(noise.narrow(1, 0, 1))}, 1);
  if (mask.dim() == noise.dim()) mask = mask.narrow(1, 0, 1);
  while (mask.dim() < noise.dim()) mask = mask.unsqueeze(0);
  mask = fitted(mask.to(noise.device(), at::kFloat), noise, 1).round();
  return at::cat({image, 1.0 - mask}, 1);
}

// What LoRA files that keep Tencent's names call parts of ours. Source: ComfyUI comfy/lora.py,
// model_lora_keys_unet.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kLoraParts = {{
    {"_mod.lin", "_mod.linear"},
    {"_attn.qkv", "_attn_qkv"},
    {"_attn.proj", "_attn_proj"},
    {"mlp.0", "mlp.fc1"},
    {"mlp.2", "mlp.fc2"},
    {".modulation.lin", ".modulation.linear"},
}};

LoraNames lora_names_of(const Config& config, const weights::Manifest& network) {
  auto names = prefixed_lora_names(network, {"", "diffusion_model.", "lora_unet_"});
  auto declared = declared_names(network);
  for (const auto& weight : declared) {
    if (!weight.ends_with(".weight")) continue;
    auto name = lora_base(weight);
    for (const auto& [ours, theirs] : kLoraParts)
      if (auto at = name.find(ours); at != std::string::npos) name.replace(at, ours.size(), theirs);
    for (const std::string prefix : {"transformer.", "diffusion_model."})
      names[prefix + name] = weight;
  }
  for (const auto& [theirs, place] : diffusers_places(config)) {
    auto ours = place.name.ends_with(".scale") ? place.name : place.name + ".weight";
    if (declared.count(ours) == 0) continue;
    weights::LoraTarget target(ours, place.first_row, place.rows);
    target.swapped = place.swapped;
    names["transformer." + theirs] = target;
  }
  return names;
}

/// The same of HunyuanVideo 1.5: without frames there are none, and the mask is not rounded. Source:
/// ComfyUI comfy/model_base.py, HunyuanVideo15.concat_cond.
Tensor concat15_of(const ConditioningItem& item, const EncodeContext& context,
                   const LatentFormat& format) {
  const auto& noise = context.noise;
  auto given = tensor_of(item, "concat_latent_image", noise);
  if (given.defined() && (given.dim() != 5 || given.size(1) != format.channels))
    throw Error(ErrorKind::Shape, "concat_latent_image",
                fmt::format("must be a latent of {} channels with frames, got {}: make the "
                            "conditioning with the VAE of HunyuanVideo 1.5",
                            format.channels, c10::str(given.sizes())));
  auto image =
      given.defined() ? fitted(format.into_network(given), noise, 0) : at::zeros_like(noise);
  auto mask = tensor_of(item, "concat_mask", noise);
  if (!mask.defined()) mask = context.denoise_mask;
  if (!mask.defined()) return at::cat({image, at::zeros_like(noise.narrow(1, 0, 1))}, 1);
  if (mask.dim() == noise.dim()) mask = mask.narrow(1, 0, 1);
  while (mask.dim() < noise.dim()) mask = mask.unsqueeze(0);
  return at::cat({image, fitted(1.0 - mask.to(noise.device(), at::kFloat), noise, 0)}, 1);
}

class HunyuanVideo final : public Family {
 public:
  explicit HunyuanVideo(Checkpoint part) : part_(std::move(part)), config_(config_of(part_)) {}

  std::string name() const override {
    return config_.is_15() ? "HunyuanVideo 1.5" : "HunyuanVideo";
  }
  const Checkpoint& diffusion() const override { return part_; }
  std::unique_ptr<Network> make_network() const override {
    return std::make_unique<Transformer>(config_);
  }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return sampling::flow_sampling(kShift);
  }
  const LatentFormat& latent() const override { return latent_; }
  LoraNames lora_names(const weights::Manifest& network) const override {
    return lora_names_of(config_, network);
  }
  TextRecipe text(const Checkpoint& file) const override {
    return checkpoint_recipe(file, config_.is_15() ? "hunyuan_video_15" : "hunyuan_video");
  }
  VaePart vae(const Checkpoint& file) const override { return find_vae(file); }
  bool keeps_given_part_clean() const override { return true; }
  ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                    const EncodeContext& context) const override;

 private:
  Checkpoint part_;
  Config config_;
  LatentFormat latent_ = config_.is_15() ? hunyuan_video15_latent() : hunyuan_video_latent();
};

ModelInput HunyuanVideo::encode(const InputSpec& spec, const ConditioningItem& item,
                                const EncodeContext& context) const {
  const auto& noise = context.noise;
  auto in_batch = [&](const Tensor& value) {
    return ModelInput{spec.kind, repeat_batch(value, noise.size(0)), {}};
  };
  auto number = [&](const char* name) -> ModelInput {
    auto at = item.numbers.find(name);
    if (at == item.numbers.end()) return {spec.kind, {}, {}};
    return {spec.kind, at::full({1}, at->second), {}};
  };
  if (spec.name == "context") return in_batch(item.cross_attn);
  if (spec.name == "vector") return in_batch(item.pooled_output);
  if (spec.name == "attention_mask") {
    auto mask = item.tensors.find("attention_mask");
    if (mask == item.tensors.end() || mask->second.dim() != 2) return {spec.kind, {}, {}};
    return in_batch(mask->second);
  }
  if (spec.name == "guidance") {
    if (item.numbers.count("no_guidance")) return {spec.kind, {}, {}};
    auto told = number("guidance");
    return told.defined() ? told : ModelInput{spec.kind, at::full({1}, kGuidance), {}};
  }
  if (spec.name == "concat")
    return {spec.kind,
            config_.is_15() ? concat15_of(item, context, latent_)
                            : concat_of(item, context, latent_, config_.beside()),
            {}};
  if (spec.name == "glyphs") return in_batch(tensor_of(item, "conditioning_byt5small", noise));
  if (spec.name == "vision") return in_batch(tensor_of(item, "clip_vision_last", noise));
  if (spec.name == "given_frame") return number("guiding_frame_index");
  if (spec.name == "reference") {
    auto picture = tensor_of(item, "ref_latent", noise);
    return in_batch(picture.defined() ? latent_.into_network(picture) : picture);
  }
  return {spec.kind, {}, {}};
}

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  auto part = with_our_names(below);
  return part.empty() ? nullptr : std::make_unique<HunyuanVideo>(std::move(part));
}

}  // namespace distorch::models::hunyuan_video
