#include "distorch/models/hunyuan_vae15/config.h"

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/models/tensor_size.h"

namespace distorch::models::hunyuan_vae15 {

using weights::Checkpoint;

Checkpoint part_of(const Checkpoint& file) {
  auto part = file;
  for (const char* prefix : {"first_stage_model.", "vae."})
    if (file.has_prefix(prefix)) part = file.part(prefix);
  const auto* first = part.find("decoder.conv_in.conv.weight");
  constexpr std::size_t dimensions = 5;
  if (!first || first->shape.size() != dimensions || !part.has("decoder.norm_out.gamma") ||
      !part.has("decoder.mid.attn_1.q.weight"))
    return {};
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
  c.latent_channels = size_of(part, "decoder.conv_in.conv.weight", 1);
  auto fails = [&](const std::string& why) {
    throw Error(ErrorKind::Shape, part.path(), "holds an autoencoder " + why);
  };
  // Ways past the layers average neighbouring channels on the way down and repeat them on the way up.
  if (c.channels.back() % (2 * c.latent_channels) != 0)
    fails(fmt::format("whose {} lowest channels do not make latents of {}", c.channels.back(),
                      c.latent_channels));
  for (std::int64_t level = 0; level + 1 < c.levels(); ++level) {
    auto cells = c.halves_time(level) ? 8 : 4;
    auto above = c.width(level), below = c.width(level + 1);
    if (below % cells != 0 || (cells * above) % below != 0 || (cells * above / below) % 2 != 0)
      fails(fmt::format("with {} channels at one level and {} at the next", above, below));
  }
  return c;
}

}  // namespace distorch::models::hunyuan_vae15
