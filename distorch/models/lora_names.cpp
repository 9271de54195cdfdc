#include "distorch/models/lora_names.h"

#include <algorithm>
#include <set>

namespace distorch::models {
namespace {

constexpr std::string_view ending = ".weight";

std::string base_of(const std::string& weight) {
  return weight.substr(0, weight.size() - ending.size());
}

std::string with_underscores(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

std::set<std::string> matrices_of(const weights::Manifest& manifest) {
  std::set<std::string> names;
  for (const auto& weight : manifest.weights())
    if (weight.name.ends_with(ending)) names.insert(weight.name);
  return names;
}

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

LoraNames unet_lora_names(const sd::UNetConfig& config, const weights::Manifest& manifest) {
  LoraNames names;
  auto declared = matrices_of(manifest);
  for (const auto& weight : declared) {
    names["lora_unet_" + with_underscores(base_of(weight))] = weight;
    names["diffusion_model." + base_of(weight)] = weight;
  }
  for (const auto& [theirs, ours] : sd::diffusers_names(config)) {
    if (!theirs.ends_with(ending) || !declared.count(ours)) continue;
    auto base = base_of(theirs);
    names["lora_unet_" + with_underscores(base)] = ours;
    names["lycoris_" + with_underscores(base)] = ours;
    for (std::string prefix : {"", "unet."})
      for (const auto& spelled :
           {base, without_index(base), processor_name(base), without_index(processor_name(base))})
        names[prefix + spelled] = ours;
  }
  return names;
}

LoraNames text_lora_names(const weights::Manifest& manifest) {
  LoraNames names;
  for (const auto& weight : matrices_of(manifest)) {
    auto base = base_of(weight);
    for (std::string prefix : {"lora_te_", "lora_te1_"})
      names[prefix + with_underscores(base)] = weight;
    for (std::string prefix : {"text_encoder.", "text_encoders.clip_l.transformer.",
                               "text_encoders.clip_h.transformer."})
      names[prefix + base] = weight;
  }
  return names;
}

}  // namespace distorch::models
