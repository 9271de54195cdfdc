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

}  // namespace

Checkpoint vae_part(const Checkpoint& file) {
  auto part = file.has_prefix("first_stage_model.") ? file.part("first_stage_model.") : file;
  if (part.has("decoder.up_blocks.0.resnets.0.norm1.weight")) part = from_diffusers(part);
  if (!part.has("decoder.conv_in.weight")) return {};
  give_attention_kernels(part);
  return part;
}

VaeConfig vae_config(const Checkpoint& vae) {
  VaeConfig c;
  c.channels.clear();
  for (int level = 0, levels = vae.count("encoder.down."); level < levels; ++level)
    c.channels.push_back(
        size_of(vae, fmt::format("encoder.down.{}.block.0.conv1.weight", level), 0));
  if (c.channels.empty())
    throw Error(ErrorKind::MissingWeight, vae.path(),
                "has no tensor 'encoder.down.0.block.0.conv1.weight'");
  c.res_blocks = vae.count("encoder.down.0.block.");
  c.image_channels = size_of(vae, "encoder.conv_in.weight", 1);
  c.z_channels = size_of(vae, "decoder.conv_in.weight", 1);
  c.quant = vae.has("post_quant_conv.weight");
  c.latent_channels = c.quant ? size_of(vae, "post_quant_conv.weight", 1) : c.z_channels;
  constexpr std::int64_t norm_groups = 32;
  for (auto channels : c.channels)
    if (channels % norm_groups != 0)
      throw Error(
          ErrorKind::Shape, vae.path(),
          fmt::format(
              "holds an autoencoder with {} channels at one level, which is no multiple of 32",
              channels));
  return c;
}

}  // namespace distorch::models::vae
