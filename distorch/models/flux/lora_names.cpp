#include "distorch/models/flux/lora_names.h"

#include <fmt/format.h>

#include <set>

namespace distorch::models::flux {
namespace {

void add_diffusers(LoraNames& names, const Config& config, const std::set<std::string>& declared) {
  for (const auto& [theirs, place] : diffusers_places(config)) {
    auto ours = place.name.ends_with(".scale") ? place.name : place.name + ".weight";
    if (!declared.count(ours)) continue;
    weights::LoraTarget target(ours, place.first_row, place.rows);
    target.swapped = place.swapped;
    for (const std::string prefix : {"transformer.", "base_model.model.", "diffusion_model.", ""})
      names[prefix + theirs] = target;
    for (const std::string prefix : {"lora_transformer_", "lycoris_", "lora_unet_"})
      names[prefix + with_underscores(theirs)] = target;
  }
}

void add_processors(LoraNames& names, const Config& config) {
  for (const std::string prefix : {"", "diffusion_model."}) {
    for (std::int64_t i = 0; i < config.depth; ++i) {
      auto block = fmt::format("double_blocks.{}.", i);
      for (auto [number, stream] : {std::pair{1, "img_attn"}, {2, "txt_attn"}})
        for (const char* layer : {"qkv", "proj"})
          names[fmt::format("{}{}processor.{}_lora{}", prefix, block, layer, number)] =
              fmt::format("{}{}.{}.weight", block, stream, layer);
    }
    for (std::int64_t i = 0; i < config.single_depth; ++i) {
      auto block = fmt::format("single_blocks.{}.", i);
      weights::LoraTarget qkv(block + "linear1.weight", 0, 3 * config.hidden);
      names[prefix + block + "processor.qkv_lora"] = qkv;
      names[prefix + block + "linear1_qkv"] = qkv;
      names[prefix + block + "processor.proj_lora"] = block + "linear2.weight";
    }
  }
}

}  // namespace

LoraNames flux_lora_names(const Config& config, const weights::Manifest& manifest) {
  auto names = prefixed_lora_names(manifest, {"lora_unet_", "diffusion_model.", ""});
  std::set<std::string> declared;
  for (const auto& weight : manifest.weights()) {
    declared.insert(weight.name);
    // What is no "...weight" is named as a whole.
    if (weight.name.ends_with(".scale"))
      for (const std::string prefix : {"", "diffusion_model."})
        names[prefix + weight.name] = weight.name;
  }
  add_diffusers(names, config, declared);
  add_processors(names, config);
  return names;
}

}  // namespace distorch::models::flux
