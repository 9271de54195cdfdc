#include "distorch/models/z_image/lora_names.h"

#include <set>

namespace distorch::models::z_image {

LoraNames next_dit_lora_names(const NextDitConfig& config, const weights::Manifest& manifest) {
  auto names = prefixed_lora_names(
      manifest, {"lora_unet_", "lycoris_", "diffusion_model.", "transformer.", ""});
  std::set<std::string> declared;
  for (const auto& weight : manifest.weights()) declared.insert(weight.name);
  for (const auto& [theirs, layer] : diffusers_layers(config)) {
    auto ours = layer + ".weight";
    if (!declared.count(ours)) continue;
    for (const std::string prefix : {"diffusion_model.", "transformer.", ""})
      names[prefix + theirs] = ours;
    for (const std::string prefix : {"lora_unet_", "lycoris_"})
      names[prefix + with_underscores(theirs)] = ours;
  }
  return names;
}

}  // namespace distorch::models::z_image
