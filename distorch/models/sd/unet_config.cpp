#include "distorch/models/sd/unet_config.h"

#include <fmt/format.h>

#include <array>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::sd {
namespace {

using weights::Checkpoint;

// Transformer blocks behind the residual block at `stage`; 0 where there is no attention.
std::int64_t depth_at(const Checkpoint& c, const std::string& stage) {
  return c.count(stage + ".1.transformer_blocks.");
}

void read_down(const Checkpoint& c, UNetConfig& config) {
  config.channels.push_back(config.model_channels);
  config.res_blocks.push_back(0);
  for (int i = 1, count = c.count("input_blocks."); i < count; ++i) {
    auto stage = fmt::format("input_blocks.{}", i);
    if (c.has(stage + ".0.op.weight")) {
      config.channels.push_back(0);
      config.res_blocks.push_back(0);
      continue;
    }
    config.channels.back() = size_of(c, stage + ".0.out_layers.3.weight", 0);
    ++config.res_blocks.back();
    config.depth_in.push_back(depth_at(c, stage));
  }
  for (auto blocks : config.res_blocks)
    if (blocks == 0)
      throw Error(ErrorKind::Shape, c.path(),
                  "holds a UNet with a level that has no residual block");
}

void read_up(const Checkpoint& c, UNetConfig& config) {
  std::int64_t wanted = 0;
  for (auto blocks : config.res_blocks) wanted += blocks + 1;
  for (std::int64_t i = 0; i < wanted; ++i)
    config.depth_out.push_back(depth_at(c, fmt::format("output_blocks.{}", i)));
}

void read_middle(const Checkpoint& c, UNetConfig& config) {
  if (c.has_prefix("middle_block.1."))
    config.depth_middle = depth_at(c, "middle_block");
  else
    config.depth_middle = c.has("middle_block.0.in_layers.0.weight") ? -1 : -2;
}

// Width of the text and the kind of projection, told by any transformer.
void read_attention(const Checkpoint& c, UNetConfig& config) {
  config.context_width = 0;
  for (const auto& [name, stored] : c.tensors()) {
    if (name.ends_with(".attn2.to_k.weight") && stored.shape.size() == 2)
      config.context_width = stored.shape[1];
    if (name.ends_with(".proj_in.weight")) config.linear_projection = stored.shape.size() == 2;
  }
}

constexpr std::array<std::pair<const char*, const char*>, 6> resnet_names = {{
    {"in_layers.0", "norm1"},
    {"in_layers.2", "conv1"},
    {"emb_layers.1", "time_emb_proj"},
    {"out_layers.0", "norm2"},
    {"out_layers.3", "conv2"},
    {"skip_connection", "conv_shortcut"},
}};

constexpr std::array fixed_names = std::to_array<std::pair<const char*, const char*>>({
    {"time_embed.0", "time_embedding.linear_1"},
    {"time_embed.2", "time_embedding.linear_2"},
    {"label_emb.0.0", "class_embedding.linear_1"},
    {"label_emb.0.2", "class_embedding.linear_2"},
    {"label_emb.0.0", "add_embedding.linear_1"},
    {"label_emb.0.2", "add_embedding.linear_2"},
    {"input_blocks.0.0", "conv_in"},
    {"out.0", "conv_norm_out"},
    {"out.2", "conv_out"},
});

constexpr std::array transformer_parts = {
    "norm1",          "norm2",          "norm3",      "attn1.to_q", "attn1.to_k",
    "attn1.to_v",     "attn1.to_out.0", "attn2.to_q", "attn2.to_k", "attn2.to_v",
    "attn2.to_out.0", "ff.net.0.proj",  "ff.net.2"};

// Collects pairs (diffusers, original) without their ends, then with "weight" and "bias".
class NameMap {
 public:
  void add(const std::string& theirs, const std::string& ours) {
    for (const char* end : {".weight", ".bias"}) names_[theirs + end] = ours + end;
  }
  void resnet(const std::string& theirs, const std::string& ours) {
    for (const auto& [our_part, their_part] : resnet_names)
      add(theirs + "." + their_part, ours + "." + our_part);
  }
  void transformer(const std::string& theirs, const std::string& ours, std::int64_t depth) {
    for (std::string part : {"norm", "proj_in", "proj_out"})
      add(theirs + "." + part, ours + "." + part);
    for (std::int64_t d = 0; d < depth; ++d)
      for (std::string part : transformer_parts) {
        auto inner = fmt::format(".transformer_blocks.{}.{}", d, part);
        add(theirs + inner, ours + inner);
      }
  }
  std::map<std::string, std::string> take() { return std::move(names_); }

 private:
  std::map<std::string, std::string> names_;
};

// What diffusers_names() needs, read off a file with diffusers names.
UNetConfig layout_of_diffusers(const Checkpoint& c) {
  UNetConfig config;
  auto levels = c.count("down_blocks.");
  for (int i = 0; i < levels; ++i) {
    auto level = fmt::format("down_blocks.{}.", i);
    config.res_blocks.push_back(c.count(level + "resnets."));
    for (int j = 0; j < config.res_blocks.back(); ++j)
      config.depth_in.push_back(
          c.count(fmt::format("{}attentions.{}.transformer_blocks.", level, j)));
  }
  for (int i = 0; i < c.count("up_blocks."); ++i)
    for (int j = 0; j < c.count(fmt::format("up_blocks.{}.resnets.", i)); ++j)
      config.depth_out.push_back(
          c.count(fmt::format("up_blocks.{}.attentions.{}.transformer_blocks.", i, j)));
  config.depth_middle = c.count("mid_block.attentions.0.transformer_blocks.");
  config.channels.assign(levels, 0);
  return config;
}

}  // namespace

std::int64_t UNetConfig::heads(std::int64_t width) const {
  return linear_projection ? std::max<std::int64_t>(1, width / 64) : 8;
}

UNetConfig encoder_config(const Checkpoint& encoder) {
  UNetConfig config;
  config.model_channels = size_of(encoder, "input_blocks.0.0.weight", 0);
  config.in_channels = size_of(encoder, "input_blocks.0.0.weight", 1);
  config.out_channels = 0;
  config.time_width = size_of(encoder, "time_embed.0.weight", 0);
  if (encoder.has_prefix("label_emb."))
    config.vector_width = size_of(encoder, "label_emb.0.0.weight", 1);
  read_down(encoder, config);
  read_middle(encoder, config);
  read_attention(encoder, config);
  constexpr std::int64_t norm_groups = 32;
  for (auto channels : config.channels)
    if (channels % norm_groups != 0 || channels % config.heads(channels) != 0)
      throw Error(
          ErrorKind::Shape, encoder.path(),
          fmt::format("holds a UNet with {} channels at one level, which is no multiple of 32",
                      channels));
  return config;
}

UNetConfig unet_config(const Checkpoint& unet) {
  auto config = encoder_config(unet);
  config.out_channels = size_of(unet, "out.2.weight", 0);
  read_up(unet, config);
  return config;
}

bool predicts_velocity(const Checkpoint& unet) {
  constexpr double limit = 0.09;
  auto last = unet.count("output_blocks.") - 1;
  const auto* bias =
      unet.find(fmt::format("output_blocks.{}.1.transformer_blocks.0.norm1.bias", last));
  if (!bias || !bias->file || bias->size_bytes == 0) return false;
  return weights::read_tensor(*bias).to(at::kFloat).std(/*unbiased=*/false).item<double>() > limit;
}

std::map<std::string, std::string> diffusers_names(const UNetConfig& config) {
  NameMap map;
  for (const auto& [ours, theirs] : fixed_names) map.add(theirs, ours);
  std::size_t in = 0, out = 0;
  auto levels = config.res_blocks.size();
  std::int64_t n = 1;  // input block
  for (std::size_t level = 0; level < levels; ++level) {
    for (std::int64_t j = 0; j < config.res_blocks[level]; ++j, ++n) {
      map.resnet(fmt::format("down_blocks.{}.resnets.{}", level, j),
                 fmt::format("input_blocks.{}.0", n));
      auto depth = in < config.depth_in.size() ? config.depth_in[in++] : 0;
      if (depth > 0)
        map.transformer(fmt::format("down_blocks.{}.attentions.{}", level, j),
                        fmt::format("input_blocks.{}.1", n), depth);
    }
    if (level + 1 < levels)
      map.add(fmt::format("down_blocks.{}.downsamplers.0.conv", level),
              fmt::format("input_blocks.{}.0.op", n++));
  }
  map.resnet("mid_block.resnets.0", "middle_block.0");
  map.resnet("mid_block.resnets.1", "middle_block.2");
  if (config.depth_middle > 0)
    map.transformer("mid_block.attentions.0", "middle_block.1", config.depth_middle);
  n = 0;  // output block
  for (std::size_t up = 0; up < levels; ++up) {
    auto blocks = config.res_blocks[levels - 1 - up] + 1;
    for (std::int64_t j = 0; j < blocks; ++j, ++n) {
      map.resnet(fmt::format("up_blocks.{}.resnets.{}", up, j),
                 fmt::format("output_blocks.{}.0", n));
      auto depth = out < config.depth_out.size() ? config.depth_out[out++] : 0;
      if (depth > 0)
        map.transformer(fmt::format("up_blocks.{}.attentions.{}", up, j),
                        fmt::format("output_blocks.{}.1", n), depth);
      if (j + 1 == blocks && up + 1 < levels)
        map.add(fmt::format("up_blocks.{}.upsamplers.0.conv", up),
                fmt::format("output_blocks.{}.{}.conv", n, depth > 0 ? 2 : 1));
    }
  }
  return map.take();
}

Checkpoint with_original_names(const Checkpoint& unet) {
  if (!unet.has("conv_in.weight") || !unet.has_prefix("down_blocks.0.")) return unet;
  auto renamed = unet;
  for (const auto& [theirs, ours] : diffusers_names(layout_of_diffusers(unet)))
    renamed.rename(theirs, ours);
  return renamed;
}

}  // namespace distorch::models::sd
