#include "distorch/models/hunyuan_vae/config.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"
#include "distorch/models/vae/config.h"

namespace distorch::models::hunyuan_vae {

using weights::Checkpoint;

namespace {

constexpr std::int64_t kGroups = 32;

/// Attention layers are 1x1x1 convolutions here; files may hold them as matrices of the same bytes.
void give_attention_kernels(Checkpoint& part) {
  for (const char* half : {"encoder", "decoder"})
    for (const char* layer : {"q", "k", "v", "proj_out"}) {
      auto name = fmt::format("{}.mid.attn_1.{}.weight", half, layer);
      const auto* found = part.find(name);
      if (!found || found->shape.size() != 2) continue;
      auto stored = *found;
      stored.shape.insert(stored.shape.end(), {1, 1, 1});
      part.add(name, stored);
    }
}

}  // namespace

Checkpoint part_of(const Checkpoint& file) {
  auto part = vae::original_names(file);
  const auto* first = part.find("decoder.conv_in.conv.weight");
  constexpr std::size_t dimensions = 5;
  if (!first || first->shape.size() != dimensions || !part.has_prefix("post_quant_conv.") ||
      !part.has_prefix("decoder.mid.attn_1.q."))
    return {};
  give_attention_kernels(part);
  return part;
}

Config config_of(const Checkpoint& part) {
  Config c;
  c.channels.clear();
  for (int level = 0, count = part.count("encoder.down."); level < count; ++level)
    c.channels.push_back(
        size_of(part, fmt::format("encoder.down.{}.block.0.conv1.conv.weight", level), 0));
  if (c.channels.empty())
    throw Error(ErrorKind::MissingWeight, part.path(),
                "has no tensor 'encoder.down.0.block.0.conv1.conv.weight'");
  c.res_blocks = part.count("encoder.down.0.block.");
  c.image_channels = size_of(part, "encoder.conv_in.conv.weight", 1);
  c.z_channels = size_of(part, "decoder.conv_in.conv.weight", 1);
  c.latent_channels = size_of(part, "post_quant_conv.weight", 1);
  for (auto channels : c.channels)
    if (channels % kGroups != 0)
      throw Error(ErrorKind::Shape, part.path(),
                  fmt::format("holds an autoencoder with {} channels at one level, which is no "
                              "multiple of {}",
                              channels, kGroups));
  return c;
}

}  // namespace distorch::models::hunyuan_vae
