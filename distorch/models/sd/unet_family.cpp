#include "distorch/models/sd/unet_family.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/concat_latent.h"
#include "distorch/models/sd/lora_names.h"
#include "distorch/models/sd/unet.h"

namespace distorch::models::sd {

using weights::Checkpoint;

namespace {

// A gray picture as a latent in the network's scale, by channel. Source: ComfyUI
// comfy/model_base.py, set_inpaint.
constexpr std::array<double, 4> kGray = {0.8223, -0.6876, 0.6364, 0.1380};

}  // namespace

UNetFamily::UNetFamily(Checkpoint unet, LatentFormat latent)
    : unet_(std::move(unet)), config_(unet_config(unet_)), latent_(std::move(latent)) {}

std::unique_ptr<Network> UNetFamily::make_network() const {
  return std::make_unique<UNet>(config_);
}

std::shared_ptr<const sampling::ModelSampling> UNetFamily::sampling() const {
  return sampling::discrete_sampling();
}

LoraNames UNetFamily::lora_names(const weights::Manifest& network) const {
  return unet_lora_names(config_, network);
}

VaePart UNetFamily::vae(const Checkpoint& file) const { return find_vae(file); }

sampling::ModelInput UNetFamily::encode(const InputSpec& spec,
                                        const sampling::ConditioningItem& item,
                                        const sampling::EncodeContext& context) const {
  if (spec.name == "context") return {spec.kind, item.cross_attn, {}};
  if (spec.name != "concat") return {spec.kind, {}, {}};
  auto additional = config_.in_channels - config_.out_channels;
  if (additional == latent_.channels) return {spec.kind, edit_concat(item, context), {}};
  if (additional == latent_.channels + 1)
    return {spec.kind, inpaint_concat(item, context, latent_, kGray), {}};
  throw Error(ErrorKind::Usage, unet_.path(),
              fmt::format("wants {} input channels beside the latent; distorch knows models with "
                          "{} (editing) and {} (inpainting)",
                          additional, latent_.channels, latent_.channels + 1));
}

Checkpoint unet_tensors(const Checkpoint& below) {
  auto unet = with_original_names(below);
  if (unet.has("input_blocks.0.0.weight") && unet.has("time_embed.0.weight")) return unet;
  return {};
}

std::optional<bool> has_linear_projection(const Checkpoint& unet) {
  for (const auto& [name, stored] : unet.tensors())
    if (name.ends_with(".proj_in.weight")) return stored.shape.size() == 2;
  return {};
}

}  // namespace distorch::models::sd
