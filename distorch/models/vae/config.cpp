#include "distorch/models/vae/config.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::vae {
namespace {

using weights::Checkpoint;

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

// Spellings of the middle attention over the years; the longer ones first.
constexpr std::array attention_parts = std::to_array<std::pair<const char*, const char*>>({
    {".group_norm.", ".norm."},
    {".to_out.0.", ".proj_out."},
    {".proj_attn.", ".proj_out."},
    {".query.", ".q."},
    {".key.", ".k."},
    {".value.", ".v."},
    {".to_q.", ".q."},
    {".to_k.", ".k."},
    {".to_v.", ".v."},
});

// "decoder.up_blocks.0.resnets.1.conv1.weight" -> "decoder.up.3.block.1.conv1.weight" with 4
// levels.
std::string original_name(std::string name, int levels) {
  for (int i = 0; i < levels; ++i) {
    replace_all(name, fmt::format(".down_blocks.{}.resnets.", i),
                fmt::format(".down.{}.block.", i));
    replace_all(name, fmt::format(".down_blocks.{}.downsamplers.0.", i),
                fmt::format(".down.{}.downsample.", i));
    // The decoder's levels count from the other end.
    replace_all(name, fmt::format(".up_blocks.{}.resnets.", i),
                fmt::format(".up.{}.block.", levels - 1 - i));
    replace_all(name, fmt::format(".up_blocks.{}.upsamplers.0.", i),
                fmt::format(".up.{}.upsample.", levels - 1 - i));
  }
  replace_all(name, ".mid_block.resnets.0.", ".mid.block_1.");
  replace_all(name, ".mid_block.resnets.1.", ".mid.block_2.");
  replace_all(name, ".conv_shortcut.", ".nin_shortcut.");
  replace_all(name, ".conv_norm_out.", ".norm_out.");
  if (name.find(".mid_block.attentions.0.") != std::string::npos) {
    for (const auto& [from, to] : attention_parts) replace_all(name, from, to);
    replace_all(name, ".mid_block.attentions.0.", ".mid.attn_1.");
  }
  return name;
}

Checkpoint from_diffusers(const Checkpoint& file) {
  Checkpoint part;
  auto levels = std::max(file.count("decoder.up_blocks."), file.count("encoder.down_blocks."));
  for (const auto& [name, stored] : file.tensors()) part.add(original_name(name, levels), stored);
  return part;
}

// Attention layers are 1x1 convolutions here; files may hold them as matrices of the same bytes.
void give_attention_kernels(Checkpoint& part) {
  for (std::string half : {"encoder", "decoder"})
    for (std::string layer : {"q", "k", "v", "proj_out"}) {
      auto name = fmt::format("{}.mid.attn_1.{}.weight", half, layer);
      const auto* found = part.find(name);
      if (!found || found->shape.size() != 2) continue;
      auto stored = *found;
      stored.shape.insert(stored.shape.end(), {1, 1});
      part.add(name, stored);
    }
}

/// Channels of each level below "encoder.down" or "decoder.up".
std::vector<std::int64_t> channels_of(const Checkpoint& vae, const std::string& levels) {
  std::vector<std::int64_t> channels;
  for (int level = 0, count = vae.count(levels + "."); level < count; ++level)
    channels.push_back(size_of(vae, fmt::format("{}.{}.block.0.conv1.weight", levels, level), 0));
  return channels;
}

}  // namespace

Checkpoint original_names(const Checkpoint& file) {
  auto part = file;
  for (std::string prefix : {"first_stage_model.", "vae."})
    if (file.has_prefix(prefix)) part = file.part(prefix);
  return part.has("decoder.up_blocks.0.resnets.0.norm1.weight") ? from_diffusers(part) : part;
}

Checkpoint vae_part(const Checkpoint& file) {
  auto part = original_names(file);
  const auto* first = part.find("decoder.conv_in.weight");
  if (!first || first->shape.size() != 4) return {};
  for (const char* end : {"weight", "bias"}) {
    part.rename(fmt::format("encoder.quant_conv.{}", end), fmt::format("quant_conv.{}", end));
    part.rename(fmt::format("decoder.post_quant_conv.{}", end),
                fmt::format("post_quant_conv.{}", end));
  }
  give_attention_kernels(part);
  return part;
}

VaeConfig vae_config(const Checkpoint& vae) {
  VaeConfig c;
  c.channels = channels_of(vae, "encoder.down");
  c.decoder_channels = channels_of(vae, "decoder.up");
  if (c.channels.empty())
    throw Error(ErrorKind::MissingWeight, vae.path(),
                "has no tensor 'encoder.down.0.block.0.conv1.weight'");
  // A file that lacks a level is told by the names that are missing.
  if (c.decoder_channels.size() != c.channels.size() || c.decoder_channels == c.channels)
    c.decoder_channels.clear();
  c.res_blocks = vae.count("encoder.down.0.block.");
  c.image_channels = size_of(vae, "encoder.conv_in.weight", 1);
  c.z_channels = size_of(vae, "decoder.conv_in.weight", 1);
  c.quant = vae.has_prefix("post_quant_conv.");
  c.latent_channels = c.quant ? size_of(vae, "post_quant_conv.weight", 1) : c.z_channels;
  c.normalized_patches = vae.has_prefix("bn.");
  constexpr std::int64_t norm_groups = 32;
  auto all = c.channels;
  all.insert(all.end(), c.decoder_channels.begin(), c.decoder_channels.end());
  for (auto channels : all)
    if (channels % norm_groups != 0)
      throw Error(
          ErrorKind::Shape, vae.path(),
          fmt::format(
              "holds an autoencoder with {} channels at one level, which is no multiple of 32",
              channels));
  return c;
}

}  // namespace distorch::models::vae
