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

std::optional<weights::LoraTarget> layer_target(const std::string& layer,
                                                const std::set<std::string>& declared,
                                                std::int64_t q_rows, std::int64_t kv_rows) {
  auto own = layer + std::string(kEnding);
  if (declared.count(own)) return own;
  auto dot = layer.rfind('.');
  if (dot == std::string::npos || dot + 2 != layer.size()) return {};
  auto fused = layer.substr(0, dot + 1) + "qkv" + std::string(kEnding);
  if (!declared.count(fused)) return {};
  switch (layer.back()) {
    case 'q': return weights::LoraTarget(fused, 0, q_rows);
    case 'k': return weights::LoraTarget(fused, q_rows, kv_rows);
    case 'v': return weights::LoraTarget(fused, q_rows + kv_rows, kv_rows);
    default: return {};
  }
}

std::set<std::string> declared_names(const weights::Manifest& manifest) {
  std::set<std::string> names;
  for (const auto& weight : manifest.weights()) names.insert(weight.name);
  return names;
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
