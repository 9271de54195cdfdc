#include "distorch/models/sd/lora_names.h"

#include <set>

namespace distorch::models::sd {
namespace {

// Old diffusers files call attention layers "attn1.processor.to_q" and write "to_out" without its
// index.
std::string processor_name(std::string base) {
  auto at = base.find(".to_");
  if (at != std::string::npos) base.insert(at, ".processor");
  return base;
}

std::string without_index(const std::string& base) {
  return base.ends_with(".to_out.0") ? base.substr(0, base.size() - 2) : base;
}

}  // namespace

LoraNames unet_lora_names(const UNetConfig& config, const weights::Manifest& manifest) {
  auto names = prefixed_lora_names(manifest, {"lora_unet_", "diffusion_model."});
  // What is no "...weight" is named as a whole.
  for (const auto& weight : manifest.weights())
    if (!weight.name.ends_with(".weight")) names["diffusion_model." + weight.name] = weight.name;
  std::set<std::string> declared;
  for (const auto& [spelled, target] : names) declared.insert(target.weight);
  for (const auto& [theirs, ours] : diffusers_names(config)) {
    if (!declared.count(ours)) continue;
    auto base = lora_base(theirs);
    names["lora_unet_" + with_underscores(base)] = ours;
    names["lycoris_" + with_underscores(base)] = ours;
    for (std::string prefix : {"", "unet."})
      for (const auto& spelled :
           {base, without_index(base), processor_name(base), without_index(processor_name(base))})
        names[prefix + spelled] = ours;
  }
  return names;
}

}  // namespace distorch::models::sd
