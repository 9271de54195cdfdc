#include "distorch/models/causal_vae/config.h"

#include <fmt/format.h>

#include <array>
#include <string>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::causal_vae {
namespace {

using weights::Checkpoint;

void replace(std::string& text, const std::string& from, const std::string& to) {
  if (auto at = text.find(from); at != std::string::npos) text.replace(at, from.size(), to);
}

constexpr std::array kDiffusersParts = std::to_array<std::pair<const char*, const char*>>({
    {".mid_block.resnets.0.", ".middle.0."},
    {".mid_block.attentions.0.", ".middle.1."},
    {".mid_block.resnets.1.", ".middle.2."},
    {".down_blocks.", ".downsamples."},
    {".norm1.", ".residual.0."},
    {".conv1.", ".residual.2."},
    {".norm2.", ".residual.3."},
    {".conv2.", ".residual.6."},
    {".conv_shortcut.", ".shortcut."},
    {".norm_out.", ".head.0."},
    {".conv_out.", ".head.2."},
    {".conv_in.", ".conv1."},
});

/// "decoder.up_blocks.1.resnets.2.conv1.weight" -> "decoder.upsamples.6.residual.2.weight" where
/// each block has `per_block` residual blocks and a resize.
std::string original_name(std::string name, int blocks, int per_block) {
  if (name.starts_with("quant_conv.")) return "conv1." + name.substr(11);
  if (name.starts_with("post_quant_conv.")) return "conv2." + name.substr(16);
  for (int block = 0; block < blocks; ++block) {
    auto from = fmt::format("decoder.up_blocks.{}.", block);
    if (!name.starts_with(from)) continue;
    auto first = block * (per_block + 1);
    for (int i = 0; i < per_block; ++i)
      replace(name, fmt::format("{}resnets.{}.", from, i),
              fmt::format("decoder.upsamples.{}.", first + i));
    replace(name, from + "upsamplers.0.", fmt::format("decoder.upsamples.{}.", first + per_block));
  }
  for (const auto& [from, to] : kDiffusersParts) replace(name, from, to);
  return name;
}

Checkpoint from_diffusers(const Checkpoint& file) {
  Checkpoint part;
  auto blocks = file.count("decoder.up_blocks.");
  auto per_block = file.count("decoder.up_blocks.0.resnets.");
  for (const auto& [name, stored] : file.tensors())
    part.add(original_name(name, blocks, per_block), stored);
  return part;
}

std::vector<Layer> layers_of(const Checkpoint& part, const std::string& list) {
  std::vector<Layer> layers;
  for (int i = 0, count = part.count(list + "."); i < count; ++i) {
    auto at = fmt::format("{}.{}.", list, i);
    Layer layer;
    std::string widest;
    if (part.has(at + "residual.2.weight")) {
      widest = at + "residual.2.weight";
    } else if (part.has(at + "to_qkv.weight")) {
      layer.kind = Layer::Kind::Attention;
      widest = at + "proj.weight";
    } else {
      layer.kind = Layer::Kind::Resample;
      layer.time = part.has(at + "time_conv.weight");
      widest = at + "resample.1.weight";
    }
    layer.in = size_of(part, widest, 1);
    layer.out = size_of(part, widest, 0);
    layers.push_back(layer);
  }
  if (layers.empty())
    throw Error(ErrorKind::MissingWeight, part.path(),
                fmt::format("has no tensor '{}.0.residual.2.weight'", list));
  return layers;
}

std::int64_t doubled(const std::vector<Layer>& layers, bool time_only) {
  std::int64_t factor = 1;
  for (const auto& layer : layers)
    if (layer.kind == Layer::Kind::Resample && (layer.time || !time_only)) factor *= 2;
  return factor;
}

}  // namespace

std::int64_t Config::downscale() const { return doubled(down, false); }
std::int64_t Config::time_downscale() const { return doubled(down, true); }

Checkpoint part_of(const Checkpoint& file) {
  auto part = file;
  for (std::string prefix : {"first_stage_model.", "vae."})
    if (file.has_prefix(prefix)) part = file.part(prefix);
  if (part.has("decoder.mid_block.resnets.0.norm1.gamma")) part = from_diffusers(part);
  // Wan 2.2's has lists within its lists.
  if (!part.has("decoder.middle.0.residual.0.gamma") ||
      part.has("decoder.upsamples.0.upsamples.0.residual.2.weight"))
    return {};
  return part;
}

Config config_of(const Checkpoint& part) {
  Config c;
  c.down = layers_of(part, "encoder.downsamples");
  c.up = layers_of(part, "decoder.upsamples");
  c.first = size_of(part, "encoder.conv1.weight", 0);
  c.image_channels = size_of(part, "encoder.conv1.weight", 1);
  c.middle = size_of(part, "decoder.conv1.weight", 0);
  c.latent_channels = size_of(part, "decoder.conv1.weight", 1);
  if (doubled(c.up, false) != c.downscale() || doubled(c.up, true) != c.time_downscale())
    throw Error(ErrorKind::Shape, part.path(),
                "holds an autoencoder whose halves do not resize by the same factors");
  return c;
}

}  // namespace distorch::models::causal_vae
