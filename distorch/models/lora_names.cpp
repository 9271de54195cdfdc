#include "distorch/models/lora_names.h"

#include <algorithm>
#include <map>

namespace distorch::models {

namespace {

constexpr std::string_view kEnding = ".weight";

/// Fused projections that the model has in pieces.
LoraNames fused_targets(const weights::Manifest& manifest) {
  std::map<std::string, std::int64_t> rows;
  for (const auto& weight : manifest.weights())
    if (weight.shape.size() > 1) rows[weight.name] = weight.shape[0];
  LoraNames fused;
  for (const auto& [name, count] : rows) {
    if (!name.ends_with(".q.weight")) continue;
    auto layer = name.substr(0, name.size() - std::string_view("q.weight").size());
    auto k = rows.find(layer + "k.weight"), v = rows.find(layer + "v.weight");
    if (k == rows.end() || v == rows.end()) continue;
    const auto all = count + k->second + v->second;
    weights::LoraTarget q(name), second(k->first), third(v->first);
    q.piece = {0, count, all};
    second.piece = {count, k->second, all};
    third.piece = {count + k->second, v->second, all};
    q.others = {second, third};
    fused[layer + "qkv"] = q;
  }
  return fused;
}

}  // namespace

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
  auto add = [&](const std::string& base, const weights::LoraTarget& target) {
    for (const auto& prefix : prefixes)
      names[prefix + (prefix.ends_with('_') ? with_underscores(base) : base)] = target;
  };
  for (const auto& weight : manifest.weights())
    if (weight.name.ends_with(kEnding)) add(lora_base(weight.name), weight.name);
  for (const auto& [base, target] : fused_targets(manifest)) add(base, target);
  return names;
}

}  // namespace distorch::models
