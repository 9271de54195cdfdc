#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/models/vae/tiled.h"
#include "distorch/models/vae_network.h"

namespace distorch::models::vae {

/// Tile and overlap in units of the input: latent cells and latent frames when decoding, pixels and
/// frames when encoding.
struct VideoTile {
  std::int64_t side = 32;
  std::int64_t overlap = 8;
  std::int64_t frames = 9999;
  std::int64_t frame_overlap = 1;
  at::Device device = at::kCPU;  // where the network computes
};

/// What a video autoencoder decodes in overlapping tiles, blended with linear feathers: latent
/// [B, C, T, h, w] on any device -> [B, 3, T', H, W], float32 on the CPU. On the tile's device there
/// is one group of frames of one tile at a time (clip.h). A sample that fits into
/// one tile is passed whole. Source: ComfyUI comfy/sd.py, decode_tiled_3d, and comfy/utils.py,
/// tiled_scale_multidim (the same positions, feathers and rounding). Error(Usage) where an overlap
/// leaves a tile no room.
at::Tensor decode_tiled_video(const VaeNetwork& vae, const at::Tensor& latent,
                              const VideoTile& tile, const TileProgress& progress = nullptr);

/// Mean of the posterior in tiles: frames [B, 3, T, H, W], -1..1, sides multiples of the network's
/// factor and T frames that make whole latent frames -> latents.
at::Tensor encode_tiled_video(const VaeNetwork& vae, const at::Tensor& frames,
                              const VideoTile& tile, const TileProgress& progress = nullptr);

/// Frames that so many latent frames stand for, and the other way round (what makes no whole latent
/// frame counts as one).
std::int64_t frames_of(const VaeShape& shape, std::int64_t latent_frames);
std::int64_t latent_frames_of(const VaeShape& shape, std::int64_t frames);

}  // namespace distorch::models::vae
