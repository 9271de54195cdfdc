#pragma once
#include <cstdint>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::causal_vae {

/// One entry of the encoder's or the decoder's list of layers.
struct Layer {
  enum class Kind {
    Residual,   // two causal convolutions
    Attention,  // over the pixels of each frame
    Resample,   // down in the encoder, up in the decoder
  };
  Kind kind = Kind::Residual;
  std::int64_t in = 0, out = 0;  // channels
  bool time = false;             // Resample: in time as well
  bool operator==(const Layer&) const = default;
};

/// Neighbouring layers of a list with a way past them that has no weights: pixels are averaged on
/// the way down and repeated on the way up.
struct Group {
  std::int64_t layers = 0;
  std::int64_t in = 0, out = 0;  // channels
  std::int64_t time = 1;         // frames to one, or one to so many
  std::int64_t space = 1;        // pixels each way
  bool shortcut = true;
  bool operator==(const Group&) const = default;
};

/// Shape of an autoencoder of pictures and video that looks back in time only (Wan 2.1 and 2.2,
/// Qwen-Image).
struct Config {
  std::vector<Layer> down, up;
  /// Empty: the layers are in no groups (Wan 2.1).
  std::vector<Group> down_groups, up_groups;
  std::int64_t first = 96;    // channels behind the encoder's first convolution
  std::int64_t middle = 384;  // channels of the decoder's lowest level
  std::int64_t image_channels = 3;
  /// Pixels of a picture, each way, that the first convolution sees as further channels.
  std::int64_t patch = 1;
  std::int64_t latent_channels = 16;

  /// Channels that the layers between pixels and the first or last convolution exchange.
  std::int64_t patch_channels() const { return image_channels * patch * patch; }
  /// Pixels per latent cell, each way.
  std::int64_t downscale() const;
  /// Frames per latent frame, after the first.
  std::int64_t time_downscale() const;
};

/// The autoencoder's tensors of a file under original names ("decoder.middle.0.residual.0.gamma"):
/// a part of a whole checkpoint ("first_stage_model.", "vae."), a file of its own, or one with
/// diffusers names (AutoencoderKLQwenImage, AutoencoderKLWan). Empty where the file has none.
weights::Checkpoint part_of(const weights::Checkpoint& file);

/// Reads the layers and sizes off names and shapes. Errors: Error(MissingWeight), Error(Shape).
Config config_of(const weights::Checkpoint& part);

}  // namespace distorch::models::causal_vae
