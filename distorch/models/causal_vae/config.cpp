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

/// How the blocks of a diffusers file lie to the original's lists.
struct DiffusersForm {
  int blocks = 0;          // of the decoder
  int down = 0, up = 0;    // residual blocks of a block of the encoder, of the decoder
  bool in_groups = false;  // lists within lists (Wan 2.2)
};

/// "encoder.down_blocks.1.resnets.0." -> "encoder.downsamples.1.downsamples.0.", and what resizes
/// behind the residual blocks.
void rename_in_group(std::string& name, const std::string& blocks, const std::string& list,
                     int residual_blocks) {
  auto at = name.find("." + blocks + ".");
  if (at == std::string::npos) return;
  replace(name, "." + blocks + ".", "." + list + ".");
  replace(name, ".resnets.", "." + list + ".");
  for (const char* resize : {".downsampler.", ".upsampler."})
    replace(name, resize, fmt::format(".{}.{}.", list, residual_blocks));
}

/// "decoder.up_blocks.1.resnets.2.conv1.weight" -> "decoder.upsamples.6.residual.2.weight" where
/// each block has two residual blocks and a resize.
std::string original_name(std::string name, const DiffusersForm& form) {
  if (name.starts_with("quant_conv.")) return "conv1." + name.substr(11);
  if (name.starts_with("post_quant_conv.")) return "conv2." + name.substr(16);
  if (form.in_groups) {
    rename_in_group(name, "down_blocks", "downsamples", form.down);
    rename_in_group(name, "up_blocks", "upsamples", form.up);
  }
  for (int block = 0; block < form.blocks; ++block) {
    auto from = fmt::format("decoder.up_blocks.{}.", block);
    if (!name.starts_with(from)) continue;
    auto first = block * (form.up + 1);
    for (int i = 0; i < form.up; ++i)
      replace(name, fmt::format("{}resnets.{}.", from, i),
              fmt::format("decoder.upsamples.{}.", first + i));
    replace(name, from + "upsamplers.0.", fmt::format("decoder.upsamples.{}.", first + form.up));
  }
  for (const auto& [from, to] : kDiffusersParts) replace(name, from, to);
  return name;
}

Checkpoint from_diffusers(const Checkpoint& file) {
  DiffusersForm form{file.count("decoder.up_blocks."), file.count("encoder.down_blocks.0.resnets."),
                     file.count("decoder.up_blocks.0.resnets."),
                     file.has("encoder.down_blocks.0.resnets.0.norm1.gamma")};
  Checkpoint part;
  for (const auto& [name, stored] : file.tensors()) part.add(original_name(name, form), stored);
  return part;
}

/// The layers of one list, behind those of `layers`.
void add_layers(const Checkpoint& part, const std::string& list, std::vector<Layer>& layers) {
  auto before = layers.size();
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
  if (layers.size() == before)
    throw Error(ErrorKind::MissingWeight, part.path(),
                fmt::format("has no tensor '{}.0.residual.2.weight'", list));
}

/// The lists "decoder.upsamples.0.upsamples", ... one behind the other, and how they are divided.
std::vector<Group> groups_of(const Checkpoint& part, const std::string& half,
                             const std::string& list, std::vector<Layer>& layers) {
  std::vector<Group> groups;
  auto outer = half + "." + list;
  for (int g = 0, count = part.count(outer + "."); g < count; ++g) {
    auto first = layers.size();
    add_layers(part, fmt::format("{}.{}.{}", outer, g, list), layers);
    const auto& last = layers.back();
    bool resizes = last.kind == Layer::Kind::Resample;
    Group group{static_cast<std::int64_t>(layers.size() - first),
                layers[first].in,
                last.out,
                resizes && last.time ? 2 : 1,
                resizes ? 2 : 1,
                true};
    // Upwards there is a way past what is doubled only.
    group.shortcut = half == "encoder" || resizes;
    auto factor = group.time * group.space * group.space;
    auto from = half == "encoder" ? group.in * factor : group.out * factor;
    if (group.shortcut && from % (half == "encoder" ? group.out : group.in) != 0)
      throw Error(ErrorKind::Shape, part.path(),
                  fmt::format("'{}.{}' leads from {} channels to {}, past which there is no way",
                              outer, g, group.in, group.out));
    groups.push_back(group);
  }
  return groups;
}

std::int64_t doubled(const std::vector<Layer>& layers, bool time_only) {
  std::int64_t factor = 1;
  for (const auto& layer : layers)
    if (layer.kind == Layer::Kind::Resample && (layer.time || !time_only)) factor *= 2;
  return factor;
}

}  // namespace

std::int64_t Config::downscale() const { return patch * doubled(down, false); }
std::int64_t Config::time_downscale() const { return doubled(down, true); }

Checkpoint part_of(const Checkpoint& file) {
  auto part = file;
  for (std::string prefix : {"first_stage_model.", "vae."})
    if (file.has_prefix(prefix)) part = file.part(prefix);
  if (part.has("decoder.mid_block.resnets.0.norm1.gamma")) part = from_diffusers(part);
  if (!part.has("decoder.middle.0.residual.0.gamma")) return {};
  return part;
}

Config config_of(const Checkpoint& part) {
  Config c;
  // Wan 2.2's has lists within its lists, and sees four pixels as one.
  if (part.has("decoder.upsamples.0.upsamples.0.residual.2.weight")) {
    c.down_groups = groups_of(part, "encoder", "downsamples", c.down);
    c.up_groups = groups_of(part, "decoder", "upsamples", c.up);
    c.patch = 2;
  } else {
    add_layers(part, "encoder.downsamples", c.down);
    add_layers(part, "decoder.upsamples", c.up);
  }
  c.first = size_of(part, "encoder.conv1.weight", 0);
  c.image_channels = size_of(part, "encoder.conv1.weight", 1) / (c.patch * c.patch);
  c.middle = size_of(part, "decoder.conv1.weight", 0);
  c.latent_channels = size_of(part, "decoder.conv1.weight", 1);
  if (doubled(c.up, false) * c.patch != c.downscale() || doubled(c.up, true) != c.time_downscale())
    throw Error(ErrorKind::Shape, part.path(),
                "holds an autoencoder whose halves do not resize by the same factors");
  return c;
}

}  // namespace distorch::models::causal_vae
