#include "distorch/models/sd3/lora_names.h"

#include <set>

namespace distorch::models::sd3 {

LoraNames mmdit_lora_names(const MmditConfig& config, const weights::Manifest& manifest) {
  auto names = prefixed_lora_names(manifest, {"lora_unet_", "diffusion_model."});
  std::set<std::string> declared;
  for (const auto& weight : manifest.weights()) declared.insert(weight.name);
  for (const auto& [theirs, layer] : diffusers_layers(config.blocks)) {
    auto ours = layer + ".weight";
    if (!declared.count(ours)) continue;
    for (const std::string prefix : {"transformer.", "base_model.model."})
      names[prefix + theirs] = ours;
    for (const std::string prefix : {"lora_transformer_", "lycoris_"})
      names[prefix + with_underscores(theirs)] = ours;
  }
  return names;
}

}  // namespace distorch::models::sd3
