#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::ltxv_vae {

/// One entry of the encoder's or the decoder's list of blocks.
struct Stage {
  enum class Kind {
    Residuals,  // residual blocks of one width
    Widen,      // one residual block that changes the width
    Strided,    // a convolution that leaves cells out, on the way down
    Folded,     // a convolution whose channels are cells of its neighbours, either way
  };
  Kind kind = Kind::Residuals;
  std::int64_t in = 0, out = 0;      // channels
  std::int64_t blocks = 1;           // Residuals: how many
  std::int64_t time = 1, space = 1;  // frames and pixels, each way, to one, or one to so many
  /// Folded on the way up: what came in is added, its channels spread in the same way.
  bool residual = false;
  /// Residuals: noise is added behind every convolution, times a learned factor by channel.
  bool noise = false;
  bool operator==(const Stage&) const = default;
};

/// How convolutions continue a frame beyond its edges.
enum class Edges { Zeros, Reflected };

/// Shape of LTX-Video's autoencoder, as published with 0.9, 0.9.1 and 0.9.5.
struct Config {
  std::vector<Stage> down, up;  // in the order of running
  std::int64_t latent_channels = 128;
  std::int64_t image_channels = 3;
  std::int64_t patch = 4;  // pixels of a frame, each way, that are channels first
  /// Channels that the encoder gives: those of the mean come first.
  std::int64_t encoded_channels = 129;
  Edges down_edges = Edges::Zeros, up_edges = Edges::Reflected;
  bool causal_decoder = false;  // else the decoder sees the frame after each as well
  /// The decoder takes latents with a little noise in them, and is told how much (0.9.1 on).
  bool timed = false;
  double time_scale = 1000;  // by which the noise level is multiplied

  /// Pixels a latent cell, each way, and frames a latent frame, after the first.
  std::int64_t downscale() const;
  std::int64_t time_downscale() const;
};

/// The autoencoder's tensors of a file under Lightricks' names
/// ("decoder.up_blocks.0.res_blocks.0.conv1.conv.weight"): of a file of its own, or of a whole
/// checkpoint ("vae."). Empty where the file has none.
weights::Checkpoint part_of(const weights::Checkpoint& file);

/// Channels at the ends of both halves.
struct Ends {
  std::int64_t pixels = 48;     // that the encoder takes: a patch of a frame
  std::int64_t encoder = 128;   // behind its first convolution
  std::int64_t encoded = 129;   // that it gives
  std::int64_t latent = 128;    // that the decoder takes
  std::int64_t decoder = 1024;  // behind its first convolution
};

/// Reads what a file says of its autoencoder. Error(Format) naming `path` and the entry, Error(Shape)
/// where the halves do not fit each other.
Config config_from(const nlohmann::json& said, const Ends& ends, const std::string& path);

/// What the published files say, or would where they say nothing.
enum class Release { V090, V091, V095 };
nlohmann::json published_config(Release release);

/// What the file's metadata says (file_config.h, "vae"); where it says nothing, which of the
/// published ones it is, by its shapes. Errors: Error(MissingWeight), Error(Shape), Error(Format).
Config config_of(const weights::Checkpoint& part);

}  // namespace distorch::models::ltxv_vae
