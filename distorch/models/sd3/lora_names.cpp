#include "distorch/models/sd3/lora_names.h"

#include <fmt/format.h>

namespace distorch::models::sd3 {
namespace {

/// The layers of which original files have the shift before the scale, and diffusers' after it.
bool is_shift_and_scale(const MmditConfig& config, const std::string& layer) {
  return layer == "final_layer.adaLN_modulation.1" ||
         layer ==
             fmt::format("joint_blocks.{}.context_block.adaLN_modulation.1", config.blocks - 1);
}

}  // namespace

LoraNames mmdit_lora_names(const MmditConfig& config, const weights::Manifest& manifest) {
  auto names = prefixed_lora_names(manifest, {"lora_unet_", "diffusion_model."});
  for (auto& [name, target] : names)
    target.swapped = config.scale_first && is_shift_and_scale(config, lora_base(target.weight));
  auto declared = declared_names(manifest);
  for (const auto& [theirs, layer] : diffusers_layers(config.blocks)) {
    auto target = layer_target(layer, declared, config.width, config.width);
    if (!target) continue;
    target->swapped = !config.scale_first && is_shift_and_scale(config, layer);
    for (const std::string prefix : {"transformer.", "base_model.model."})
      names[prefix + theirs] = *target;
    for (const std::string prefix : {"lora_transformer_", "lycoris_"})
      names[prefix + with_underscores(theirs)] = *target;
  }
  return names;
}

}  // namespace distorch::models::sd3
