#include "distorch/models/sd3/lora_names.h"

namespace distorch::models::sd3 {

LoraNames mmdit_lora_names(const MmditConfig& config, const weights::Manifest& manifest) {
  auto names = prefixed_lora_names(manifest, {"lora_unet_", "diffusion_model."});
  auto declared = declared_names(manifest);
  for (const auto& [theirs, layer] : diffusers_layers(config.blocks)) {
    auto target = layer_target(layer, declared, config.width, config.width);
    if (!target) continue;
    for (const std::string prefix : {"transformer.", "base_model.model."})
      names[prefix + theirs] = *target;
    for (const std::string prefix : {"lora_transformer_", "lycoris_"})
      names[prefix + with_underscores(theirs)] = *target;
  }
  return names;
}

}  // namespace distorch::models::sd3
