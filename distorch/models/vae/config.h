#pragma once
#include <cstdint>
#include <vector>

#include "distorch/weights/checkpoint.h"

namespace distorch::models::vae {

/// Shape of a KL autoencoder. Levels go from the full picture down, each half the size of the one
/// before.
struct VaeConfig {
  std::vector<std::int64_t> channels = {128, 256, 512, 512};  // by level
  /// The same of the decoder, where it is another (FLUX.2's small one); empty: as the encoder.
  std::vector<std::int64_t> decoder_channels;
  std::int64_t res_blocks = 2;  // per level of the encoder; one more in the decoder
  std::int64_t image_channels = 3;
  std::int64_t z_channels = 4;  // between encoder and quant_conv
  std::int64_t latent_channels = 4;
  bool quant = true;  // 1x1 convolutions before and after the latent
  /// FLUX.2: outside, a latent cell is 2x2 of the network's, normalised by statistics of the
  /// training.
  bool normalized_patches = false;

  /// Pixels per cell of the network, each way.
  std::int64_t downscale() const { return std::int64_t{1} << (channels.size() - 1); }
  /// Cells of the network per latent cell outside, each way.
  std::int64_t patch() const { return normalized_patches ? 2 : 1; }
};

/// The autoencoder's tensors of a file under original names
/// ("encoder.down.0.block.0.conv1.weight"): takes a part of a whole checkpoint
/// ("first_stage_model.", "vae."), a file of its own, or one with diffusers names, whose attention
/// matrices count as 1x1 convolutions. Empty where the file has none.
/// Source of the names: ComfyUI comfy/diffusers_convert.py.
weights::Checkpoint vae_part(const weights::Checkpoint& file);
/// The same names for whatever autoencoder of this plan a file holds, one of video too; the shapes
/// are as they are.
weights::Checkpoint original_names(const weights::Checkpoint& file);

/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape).
VaeConfig vae_config(const weights::Checkpoint& vae);

}  // namespace distorch::models::vae
