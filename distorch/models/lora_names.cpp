#include "distorch/models/lora_names.h"

#include <algorithm>

namespace distorch::models {

namespace {
constexpr std::string_view kEnding = ".weight";
}

std::string lora_base(const std::string& weight) {
  return weight.ends_with(kEnding) ? weight.substr(0, weight.size() - kEnding.size()) : weight;
}

std::string with_underscores(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

LoraNames prefixed_lora_names(const weights::Manifest& manifest,
                              const std::vector<std::string>& prefixes) {
  LoraNames names;
  for (const auto& weight : manifest.weights()) {
    if (!weight.name.ends_with(kEnding)) continue;
    auto base = lora_base(weight.name);
    for (const auto& prefix : prefixes)
      names[prefix + (prefix.ends_with('_') ? with_underscores(base) : base)] = weight.name;
  }
  return names;
}

}  // namespace distorch::models
