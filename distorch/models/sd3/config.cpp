#include "distorch/models/sd3/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::sd3 {

using weights::Checkpoint;

namespace {

using Pair = std::pair<const char*, const char*>;  // ours, theirs

constexpr std::array kLayers = std::to_array<Pair>({
    {"context_embedder", "context_embedder"},
    {"t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"},
    {"t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"},
    {"y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"},
    {"y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"},
    {"x_embedder.proj", "pos_embed.proj"},
    {"final_layer.adaLN_modulation.1", "norm_out.linear"},
    {"final_layer.linear", "proj_out"},
});

constexpr std::array kBlockLayers = std::to_array<Pair>({
    {"context_block.adaLN_modulation.1", "norm1_context.linear"},
    {"context_block.attn.q", "attn.add_q_proj"},
    {"context_block.attn.k", "attn.add_k_proj"},
    {"context_block.attn.v", "attn.add_v_proj"},
    {"context_block.attn.proj", "attn.to_add_out"},
    {"context_block.attn.ln_q", "attn.norm_added_q"},
    {"context_block.attn.ln_k", "attn.norm_added_k"},
    {"context_block.mlp.fc1", "ff_context.net.0.proj"},
    {"context_block.mlp.fc2", "ff_context.net.2"},
    {"x_block.adaLN_modulation.1", "norm1.linear"},
    {"x_block.attn.q", "attn.to_q"},
    {"x_block.attn.k", "attn.to_k"},
    {"x_block.attn.v", "attn.to_v"},
    {"x_block.attn.proj", "attn.to_out.0"},
    {"x_block.attn.ln_q", "attn.norm_q"},
    {"x_block.attn.ln_k", "attn.norm_k"},
    {"x_block.attn2.q", "attn2.to_q"},
    {"x_block.attn2.k", "attn2.to_k"},
    {"x_block.attn2.v", "attn2.to_v"},
    {"x_block.attn2.proj", "attn2.to_out.0"},
    {"x_block.attn2.ln_q", "attn2.norm_q"},
    {"x_block.attn2.ln_k", "attn2.norm_k"},
    {"x_block.mlp.fc1", "ff.net.0.proj"},
    {"x_block.mlp.fc2", "ff.net.2"},
});

constexpr const char* kPositions = "pos_embed";

/// The table of positions [1, N, width] as [N, width], of which rows can be read.
void flatten_positions(Checkpoint& mmdit) {
  const auto* found = mmdit.find(kPositions);
  if (!found || found->shape.size() == 2) return;
  if (found->shape.size() != 3 || found->shape[0] != 1)
    throw Error(ErrorKind::Shape, mmdit.path(),
                fmt::format("'{}' has shape [{}] where [1, positions, width] is needed", kPositions,
                            fmt::join(found->shape, ", ")));
  auto stored = *found;
  stored.shape.erase(stored.shape.begin());
  mmdit.add(kPositions, stored);
}

/// Layers with diffusers' names under the original ones.
Checkpoint renamed(const Checkpoint& theirs) {
  auto mmdit = theirs;
  mmdit.rename("pos_embed.pos_embed", kPositions);
  for (const auto& [their, our] : diffusers_layers(theirs.count("transformer_blocks.")))
    for (const char* end : {".weight", ".bias"}) mmdit.rename(their + end, our + end);
  return mmdit;
}

bool is_original(const Checkpoint& c) {
  return c.has("joint_blocks.0.context_block.adaLN_modulation.1.weight") &&
         c.has("final_layer.linear.weight");
}

bool is_diffusers(const Checkpoint& c) {
  return c.has("transformer_blocks.0.attn.add_q_proj.weight") && c.has("pos_embed.proj.weight") &&
         c.has("proj_out.weight");
}

}  // namespace

std::map<std::string, std::string> diffusers_layers(std::int64_t blocks) {
  std::map<std::string, std::string> names;
  for (const auto& [ours, theirs] : kLayers) names[theirs] = ours;
  for (std::int64_t i = 0; i < blocks; ++i)
    for (const auto& [ours, theirs] : kBlockLayers)
      names[fmt::format("transformer_blocks.{}.{}", i, theirs)] =
          fmt::format("joint_blocks.{}.{}", i, ours);
  return names;
}

Checkpoint with_original_names(const Checkpoint& below) {
  if (!is_diffusers(below) && !is_original(below)) return {};
  auto mmdit = is_diffusers(below) ? renamed(below) : below;
  flatten_positions(mmdit);
  return mmdit;
}

Checkpoint with_original_control_names(const Checkpoint& file) {
  if (!file.has("controlnet_blocks.0.weight") || !file.has("pos_embed_input.proj.weight") ||
      !file.has("transformer_blocks.0.attn.add_q_proj.weight"))
    return {};
  auto net = renamed(file);
  flatten_positions(net);
  return net;
}

MmditConfig mmdit_config(const Checkpoint& c) {
  const std::string first = "joint_blocks.0.x_block.";
  MmditConfig config;
  config.width = size_of(c, "x_embedder.proj.weight", 0);
  config.in_channels = size_of(c, "x_embedder.proj.weight", 1);
  config.patch = size_of(c, "x_embedder.proj.weight", 2);
  config.blocks = c.count("joint_blocks.");
  config.text_width = size_of(c, "context_embedder.weight", 1);
  config.vector_width = size_of(c, "y_embedder.mlp.0.weight", 1);
  config.mlp_width = size_of(c, first + "mlp.fc1.weight", 0);
  config.out_channels = config.in_channels;
  if (c.has("final_layer.linear.weight"))
    config.out_channels =
        size_of(c, "final_layer.linear.weight", 0) / (config.patch * config.patch);
  auto positions = c.has(kPositions) ? size_of(c, kPositions, 0) : 0;
  config.positions = std::llround(std::sqrt(static_cast<double>(positions)));
  config.qk_norm = c.has(first + "attn.ln_q.weight") || c.has(first + "attn.ln_k.weight");
  config.split_qkv = c.has(first + "attn.q.weight");
  config.scale_first = config.split_qkv;
  for (std::int64_t i = 0; i < config.blocks; ++i)
    if (c.has(fmt::format("joint_blocks.{}.x_block.attn2.proj.weight", i))) config.dual.insert(i);
  if (config.width % kHeadWidth != 0 || config.positions * config.positions != positions ||
      config.in_channels != config.out_channels)
    throw Error(
        ErrorKind::Shape, c.path(),
        fmt::format("holds an MM-DiT of width {}, {} positions, {} channels in and {} out: "
                    "distorch knows widths that are multiples of {}, square tables of "
                    "positions and as many channels in as out",
                    config.width, positions, config.in_channels, config.out_channels, kHeadWidth));
  if (c.has_prefix("context_processor.") || c.has("register"))
    throw Error(ErrorKind::Format, c.path(),
                "holds an MM-DiT with a context processor or register tokens, which are not "
                "supported");
  return config;
}

}  // namespace distorch::models::sd3
