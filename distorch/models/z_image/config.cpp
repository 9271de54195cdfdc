#include "distorch/models/z_image/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::z_image {

using weights::Checkpoint;

namespace {

using Pair = std::pair<const char*, const char*>;  // ours, theirs

constexpr std::array kOuterLayers = std::to_array<Pair>({
    {"x_embedder", "all_x_embedder.2-1"},
    {"final_layer.linear", "all_final_layer.2-1.linear"},
    {"final_layer.adaLN_modulation.1", "all_final_layer.2-1.adaLN_modulation.1"},
});

constexpr std::array kInnerLayers = std::to_array<Pair>({
    {"attention.q", "attention.to_q"},
    {"attention.k", "attention.to_k"},
    {"attention.v", "attention.to_v"},
    {"attention.out", "attention.to_out.0"},
    {"attention.q_norm", "attention.norm_q"},
    {"attention.k_norm", "attention.norm_k"},
});

void count_layers(const Checkpoint& c, NextDitConfig& config) {
  config.layers = c.count("layers.");
  config.noise_refiners = c.count("noise_refiner.");
  config.context_refiners = c.count("context_refiner.");
}

bool is_original(const Checkpoint& c) {
  return c.has("cap_embedder.1.weight") && c.has("noise_refiner.0.attention.k_norm.weight");
}

bool is_diffusers(const Checkpoint& c) {
  return c.has("cap_embedder.1.weight") && c.has("noise_refiner.0.attention.norm_k.weight");
}

/// Pad tokens are [1, width], in some files [width].
void shape_pads(Checkpoint& dit) {
  for (const char* name : {"x_pad_token", "cap_pad_token"}) {
    const auto* found = dit.find(name);
    if (!found || found->shape.size() != 1) continue;
    auto stored = *found;
    stored.shape.insert(stored.shape.begin(), 1);
    dit.add(name, stored);
  }
}

void refuse_relatives(const Checkpoint& c) {
  for (const auto& [mark, what] :
       {Pair{"dec_net.cond_embed.weight", "computes in pixels"},
        Pair{"clip_text_pooled_proj.0.weight", "takes a pooled text beside the tokens"}})
    if (c.has(mark))
      throw Error(ErrorKind::Format, c.path(),
                  fmt::format("holds a relative of Z-Image and Lumina 2 that {} ('{}'), which is "
                              "not supported",
                              what, mark));
}

void check_heads(const Checkpoint& c, const NextDitConfig& config) {
  auto axes = config.axes();
  bool even = std::all_of(axes.begin(), axes.end(), [](auto width) { return width % 2 == 0; });
  if (config.kv_heads >= 1 && config.heads >= 1 && config.heads % config.kv_heads == 0 && even &&
      std::accumulate(axes.begin(), axes.end(), std::int64_t{0}) == config.head_width)
    return;
  throw Error(ErrorKind::Shape, c.path(),
              fmt::format("holds a Next-DiT with {} heads of width {} and {} heads of keys, which "
                          "make no sense together",
                          config.heads, config.head_width, config.kv_heads));
}

}  // namespace

std::vector<std::int64_t> NextDitConfig::axes() const {
  if (!z_image) return {head_width / 3, head_width / 3, head_width / 3};
  return {head_width / 4, head_width * 3 / 8, head_width * 3 / 8};
}

std::vector<std::string> layer_names(const NextDitConfig& config) {
  std::vector<std::string> names;
  auto add = [&](const char* kind, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) names.push_back(fmt::format("{}.{}", kind, i));
  };
  add("context_refiner", config.context_refiners);
  add("noise_refiner", config.noise_refiners);
  add("layers", config.layers);
  return names;
}

std::map<std::string, std::string> diffusers_layers(const NextDitConfig& config) {
  std::map<std::string, std::string> names;
  for (const auto& [ours, theirs] : kOuterLayers) names[theirs] = ours;
  for (const auto& layer : layer_names(config))
    for (const auto& [ours, theirs] : kInnerLayers)
      names[fmt::format("{}.{}", layer, theirs)] = fmt::format("{}.{}", layer, ours);
  return names;
}

Checkpoint with_original_control_names(const Checkpoint& patch) {
  auto renamed = patch;
  for (const std::string row : {"control_noise_refiner.", "control_layers."})
    for (int i = 0; i < patch.count(row); ++i)
      for (const auto& [ours, theirs] : kInnerLayers)
        for (const char* end : {".weight", ".bias"})
          renamed.rename(fmt::format("{}{}.{}{}", row, i, theirs, end),
                         fmt::format("{}{}.{}{}", row, i, ours, end));
  return renamed;
}

ControlConfig control_config(const Checkpoint& patch) {
  ControlConfig config;
  config.layers = patch.count("control_layers.");
  config.mlp_width = size_of(patch, "control_layers.0.feed_forward.w1.weight", 0);
  config.channels = size_of(patch, "control_all_x_embedder.2-1.weight", 1) / 4;
  config.split_qkv = patch.has("control_layers.0.attention.q.weight");
  const auto* behind = patch.find("control_noise_refiner.0.after_proj.weight");
  config.refines = behind != nullptr;
  if (behind && behind->file && !behind->encoding)
    config.misplaced = !weights::read_tensor(*behind).to(at::kFloat).any().item<bool>();
  return config;
}

Checkpoint with_original_names(const Checkpoint& below) {
  auto dit = below;
  if (is_diffusers(below)) {
    NextDitConfig counts;
    count_layers(below, counts);
    for (const auto& [theirs, ours] : diffusers_layers(counts))
      for (const char* end : {".weight", ".bias"}) dit.rename(theirs + end, ours + end);
  } else if (!is_original(below)) {
    return {};
  }
  shape_pads(dit);
  return dit;
}

NextDitConfig next_dit_config(const Checkpoint& c) {
  refuse_relatives(c);
  const std::string first = "noise_refiner.0.";
  NextDitConfig config;
  count_layers(c, config);
  config.z_image = c.has(first + "adaLN_modulation.0.weight");
  config.width = size_of(c, "cap_embedder.1.weight", 0);
  config.text_width = size_of(c, "cap_embedder.1.weight", 1);
  config.channels = size_of(c, "x_embedder.weight", 1) / (config.patch * config.patch);
  config.head_width = size_of(c, first + "attention.q_norm.weight", 0);
  config.heads = config.width / config.head_width;
  config.split_qkv = c.has(first + "attention.q.weight");
  config.kv_heads =
      config.split_qkv
          ? size_of(c, first + "attention.k.weight", 0) / config.head_width
          : (size_of(c, first + "attention.qkv.weight", 0) / config.head_width - config.heads) / 2;
  config.mlp_width = size_of(c, first + "feed_forward.w1.weight", 0);
  config.time_width = size_of(c, "t_embedder.mlp.0.weight", 0);
  config.embedded_width = size_of(c, "t_embedder.mlp.2.weight", 0);
  config.pads = c.has("cap_pad_token");
  for (int i = 0; i < c.count("model_patch."); ++i)
    config.patches.push_back(control_config(c.part(fmt::format("model_patch.{}.", i))));
  check_heads(c, config);
  return config;
}

}  // namespace distorch::models::z_image
