#include "distorch/models/catalog.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/models/sd/unet.h"
#include "distorch/models/vae/config.h"

namespace distorch::models {
namespace {

using weights::Checkpoint;

// Values as published with the family; source of the preview's factors: ComfyUI
// comfy/latent_formats.py.
LatentFormat sd_latent() {
  return {.scale_factor = 0.18215,
          .rgb_factors = {{0.3512, 0.2297, 0.3227},
                          {0.3250, 0.4974, 0.2350},
                          {-0.2829, 0.1762, 0.2721},
                          {-0.2120, -0.2616, -0.7177}}};
}

bool is_sd_unet(const Checkpoint& unet, bool linear_projection) {
  if (!unet.has("input_blocks.0.0.weight") || !unet.has("time_embed.0.weight") ||
      unet.has("label_emb.0.0.weight"))
    return false;
  for (const auto& [name, stored] : unet.tensors())
    if (name.ends_with(".proj_in.weight")) return (stored.shape.size() == 2) == linear_projection;
  return false;
}

bool is_sd1(const Checkpoint& unet) { return is_sd_unet(unet, false); }
bool is_sd2(const Checkpoint& unet) { return is_sd_unet(unet, true); }

Prediction epsilon(const Checkpoint&) { return Prediction::Epsilon; }

// Only the text-to-image models of SD 2.x come in two kinds.
Prediction sd2_prediction(const Checkpoint& unet) {
  bool plain = unet.shape("input_blocks.0.0.weight").at(1) == 4;
  return plain && sd::predicts_velocity(unet) ? Prediction::Velocity : Prediction::Epsilon;
}

std::unique_ptr<DiffusionModel> make_sd(const Checkpoint& unet) {
  return std::make_unique<sd::UNet>(sd::unet_config(unet));
}

}  // namespace

const std::vector<ModelFamily>& families() {
  static const std::vector<ModelFamily> list = {
      {"SD1.x", is_sd1, epsilon, make_sd, clip::TextKind::ClipL, sd_latent()},
      {"SD2.x", is_sd2, sd2_prediction, make_sd, clip::TextKind::ClipH, sd_latent()},
  };
  return list;
}

const ModelFamily& detect_family(const Checkpoint& unet) {
  std::vector<std::string> names;
  for (const auto& family : families()) {
    if (family.matches(unet)) return family;
    names.push_back(family.name);
  }
  throw Error(
      ErrorKind::Format, unet.path(),
      fmt::format("holds no diffusion model of a known family ({})", fmt::join(names, ", ")));
}

Checkpoint unet_part(const Checkpoint& file) {
  for (const std::string prefix : {"model.diffusion_model.", "diffusion_model.", "unet.", ""}) {
    auto part = sd::with_original_names(prefix.empty() ? file : file.part(prefix));
    if (part.has("input_blocks.0.0.weight")) return part;
  }
  return {};
}

CheckpointParts split_checkpoint(const Checkpoint& file) {
  auto unet = unet_part(file);
  if (unet.empty()) detect_family(file);  // throws, naming the file
  const auto& family = detect_family(unet);
  return {&family, std::move(unet), clip::text_part(file), vae::vae_part(file)};
}

}  // namespace distorch::models
