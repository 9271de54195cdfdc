#include "distorch/models/ltxv/family.h"

#include "distorch/models/catalog.h"
#include "distorch/models/concat_latent.h"
#include "distorch/models/latent_formats.h"
#include "distorch/models/ltxv/transformer.h"
#include "distorch/models/text_recipes.h"

namespace distorch::models::ltxv {

using sampling::ConditioningItem;
using sampling::EncodeContext;
using sampling::ModelInput;
using weights::Checkpoint;

namespace {

constexpr double kShift = 2.37;

/// One channel of a mask [B, C, T, h, w], by frame [B, 1, T, 1, 1] where it is the same all over each:
/// then the network has a noise level a frame, and not one a token.
at::Tensor mask_of(const at::Tensor& mask) {
  if (!mask.defined()) return {};
  auto first = mask.narrow(1, 0, 1);
  if (first.is_meta()) return first;
  auto corner = first.narrow(3, 0, 1).narrow(4, 0, 1);
  return first.eq(corner).all().item<bool>() ? corner : first;
}

class LtxVideo final : public Family {
 public:
  explicit LtxVideo(Checkpoint part) : part_(std::move(part)), config_(config_of(part_)) {}

  std::string name() const override { return "LTX-Video"; }
  const Checkpoint& diffusion() const override { return part_; }
  std::unique_ptr<Network> make_network() const override {
    return std::make_unique<Transformer>(config_);
  }
  std::shared_ptr<const sampling::ModelSampling> sampling() const override {
    return sampling::flux_sampling(kShift);
  }
  const LatentFormat& latent() const override { return latent_; }
  /// Plain names with and without prefix, kohya's with underscores. Source: ComfyUI comfy/lora.py,
  /// model_lora_keys_unet.
  LoraNames lora_names(const weights::Manifest& network) const override {
    return prefixed_lora_names(network, {"", "diffusion_model.", "transformer.", "lora_unet_"});
  }
  TextRecipe text(const Checkpoint& file) const override { return checkpoint_recipe(file, "ltxv"); }
  VaePart vae(const Checkpoint& file) const override { return find_vae(file); }
  bool keeps_given_part_clean() const override { return true; }
  ModelInput encode(const InputSpec& spec, const ConditioningItem& item,
                    const EncodeContext& context) const override;

 private:
  Checkpoint part_;
  Config config_;
  LatentFormat latent_ = ltxv_latent();
};

ModelInput LtxVideo::encode(const InputSpec& spec, const ConditioningItem& item,
                            const EncodeContext& context) const {
  constexpr double rate = 25;  // where a conditioning says none
  const auto& noise = context.noise;
  auto in_batch = [&](const at::Tensor& value) {
    return ModelInput{spec.kind, repeat_batch(value, noise.size(0)), {}};
  };
  if (spec.name == "context") return in_batch(item.cross_attn);
  if (spec.name == "attention_mask") {
    auto mask = item.tensors.find("attention_mask");
    if (mask == item.tensors.end() || mask->second.dim() != 2) return {spec.kind, {}, {}};
    return in_batch(mask->second);
  }
  if (spec.name == "frame_rate") {
    auto told = item.numbers.find("frame_rate");
    return {spec.kind, {}, told == item.numbers.end() ? rate : told->second};
  }
  if (spec.name == "denoise_mask") return in_batch(mask_of(context.denoise_mask));
  if (spec.name == "keyframes") return in_batch(tensor_of(item, "keyframe_idxs", noise));
  return {spec.kind, {}, {}};
}

}  // namespace

std::unique_ptr<const Family> detect(const Checkpoint& below, const Checkpoint&) {
  auto part = with_our_names(below);
  return part.empty() ? nullptr : std::make_unique<LtxVideo>(std::move(part));
}

}  // namespace distorch::models::ltxv
