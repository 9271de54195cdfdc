#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::hunyuan_vae15 {

/// Shape of HunyuanVideo 1.5's autoencoder. Levels go from the full video down, each half the height
/// and width of the one before; the last two of these steps halve the frames too.
struct Config {
  std::vector<std::int64_t> channels = {128, 256, 512, 1024, 1024};  // by level
  std::int64_t res_blocks = 2;  // per level of the encoder; one more in the decoder
  std::int64_t image_channels = 3;
  std::int64_t latent_channels = 32;

  std::int64_t levels() const { return static_cast<std::int64_t>(channels.size()); }
  std::int64_t width(std::int64_t level) const { return channels[static_cast<std::size_t>(level)]; }
  /// Pixels a latent cell, each way.
  std::int64_t downscale() const { return std::int64_t{1} << (levels() - 1); }
  /// Whether frames are halved between `level` and the next one down.
  bool halves_time(std::int64_t level) const { return levels() - 1 - level <= kTimeSteps; }
  /// Frames a latent frame, after the first.
  std::int64_t time_downscale() const {
    return std::int64_t{1} << std::min<std::int64_t>(kTimeSteps, levels() - 1);
  }

  static constexpr std::int64_t kTimeSteps = 2;
};

/// The autoencoder's tensors of a file ("decoder.up.0.block.0.conv1.conv.weight",
/// "decoder.norm_out.gamma"): of a file of its own or of a whole checkpoint. Empty where the file has
/// none.
weights::Checkpoint part_of(const weights::Checkpoint& file);

/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
Config config_of(const weights::Checkpoint& part);

}  // namespace distorch::models::hunyuan_vae15
