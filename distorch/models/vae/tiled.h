#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

#include "distorch/models/vae_network.h"

namespace distorch::models::vae {

/// Tile and overlap in units of the input: latent cells when decoding, pixels when encoding.
struct TileSize {
  std::int64_t width = 64;
  std::int64_t height = 64;
  // smaller than width / 2 and height / 2, as three passes halve the sides in turn
  std::int64_t overlap = 16;
};

/// Called after each tile with the number done and the number in all.
using TileProgress = std::function<void(std::int64_t done, std::int64_t total)>;

/// How a tile's result relates to the tile.
struct TileScale {
  double factor = 8.0;  // output size / input size
  std::int64_t out_channels = 3;
};

/// Applies `function` [1, C, h, w] -> [1, out_channels, h·factor, w·factor] to overlapping tiles of
/// samples [B, C, H, W] and blends them with linear feathers of the overlap's width. Float32 on the
/// CPU. A sample that fits into one tile is passed whole. Source: ComfyUI comfy/utils.py,
/// tiled_scale_multidim (the same positions, feathers and rounding).
at::Tensor tiled_scale(const at::Tensor& samples,
                       const std::function<at::Tensor(const at::Tensor&)>& function,
                       const TileSize& tile, const TileScale& scale,
                       const std::function<void()>& tile_done = nullptr);

/// Number of tiles of one pass over one sample, for progress bars.
std::int64_t count_tiles(std::int64_t width, std::int64_t height, const TileSize& tile);

/// VaeNetwork::decode_pixels in tiles: the mean of three passes with tiles tall, wide and square.
/// latent [B, C, h, w] -> [B, 3, h·f, w·f]. Source: ComfyUI comfy/sd.py, decode_tiled_.
/// Errors: Error(Usage) where the overlap leaves a tile no room.
at::Tensor decode_tiled(const VaeNetwork& vae, const at::Tensor& latent, const TileSize& tile = {},
                        const TileProgress& progress = nullptr);

/// Mean of the posterior in tiles (three passes): image [B, 3, H, W], -1..1, H and W multiples of f
/// -> latents.
at::Tensor encode_tiled(const VaeNetwork& vae, const at::Tensor& image,
                        const TileSize& tile = {512, 512, 64},
                        const TileProgress& progress = nullptr);

}  // namespace distorch::models::vae
