#include "distorch/models/ltxv/config.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/file_config.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::ltxv {

using weights::Checkpoint;

namespace {

using Names = std::pair<std::string_view, std::string_view>;

// Parts of diffusers' names and ours. Source: diffusers scripts/convert_ltx_to_diffusers.py.
constexpr std::array<Names, 4> kDiffusers = {{
    {"proj_in.", "patchify_proj."},
    {"time_embed.", "adaln_single."},
    {".norm_q.", ".q_norm."},
    {".norm_k.", ".k_norm."},
}};

std::string our_name(std::string name) {
  for (const auto& [from, to] : kDiffusers)
    if (auto at = name.find(from); at == 0 || (at != std::string::npos && from.front() == '.'))
      name.replace(at, from.size(), to);
  return name;
}

/// Parts of relatives that need more than this network has.
bool is_relative(const Checkpoint& part) {
  return part.has("pos_embed.proj.bias") || part.has_prefix("audio_");
}

}  // namespace

Checkpoint with_our_names(const Checkpoint& below) {
  auto part = below;
  if (below.has("time_embed.emb.timestep_embedder.linear_1.bias") &&
      below.has("caption_projection.linear_1.weight"))
    for (const auto& [name, stored] : below.tensors())
      if (auto ours = our_name(name); ours != name) part.rename(name, ours);
  if (!part.has("adaln_single.emb.timestep_embedder.linear_1.bias") ||
      !part.has("patchify_proj.weight") || !part.has("transformer_blocks.0.attn2.to_k.weight") ||
      is_relative(part))
    return {};
  return part;
}

Config config_of(const Checkpoint& part) {
  Config c;
  const std::string block = "transformer_blocks.0.";
  c.width = size_of(part, "patchify_proj.weight", 0);
  c.channels = size_of(part, "patchify_proj.weight", 1);
  c.text_width = size_of(part, "caption_projection.linear_1.weight", 1);
  c.mlp_width = size_of(part, block + "ff.net.0.proj.weight", 0);
  c.layers = part.count("transformer_blocks.");
  const auto said = config_in(part, "transformer");
  const ConfigEntries entries(said, part.path());
  constexpr std::int64_t most_heads = 1024;
  c.heads = entries.whole("num_attention_heads", c.heads, 1, most_heads);
  c.causal_times = entries.flag("causal_temporal_positioning", c.causal_times);
  constexpr std::int64_t smallest_width = 6;  // three axes, a pair of numbers each
  if (c.width % c.heads != 0 || c.width / c.heads % 2 != 0 || c.width < smallest_width)
    throw Error(ErrorKind::Shape, part.path(),
                fmt::format("holds an LTX-Video transformer whose width {} is no even number for "
                            "each of {} heads",
                            c.width, c.heads));
  return c;
}

}  // namespace distorch::models::ltxv
