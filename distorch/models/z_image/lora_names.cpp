#include "distorch/models/z_image/lora_names.h"

namespace distorch::models::z_image {

LoraNames next_dit_lora_names(const NextDitConfig& config, const weights::Manifest& manifest) {
  auto names = prefixed_lora_names(
      manifest, {"lora_unet_", "lycoris_", "diffusion_model.", "transformer.", ""});
  auto declared = declared_names(manifest);
  for (const auto& [theirs, layer] : diffusers_layers(config)) {
    auto target = layer_target(layer, declared, config.heads * config.head_width,
                               config.kv_heads * config.head_width);
    if (!target) continue;
    for (const std::string prefix : {"diffusion_model.", "transformer.", ""})
      names[prefix + theirs] = *target;
    for (const std::string prefix : {"lora_unet_", "lycoris_"})
      names[prefix + with_underscores(theirs)] = *target;
  }
  return names;
}

}  // namespace distorch::models::z_image
