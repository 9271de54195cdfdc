#pragma once
#include <functional>

#include "distorch/graph/call.h"
#include "distorch/models/vae/tiled.h"
#include "distorch/nodes/values.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

/// Pictures to latents and back, one of a batch at a time. Images [B, H, W, C] float32 0..1,
/// latents [B, C, h, w] float32, unscaled, both on the CPU. For a video autoencoder the pictures of
/// a batch are the frames of one video, and latents are [B, C, T, h, w]; a clip passes the device
/// group by group of its frames, so that the memory there does not depend on its length. Where a
/// whole picture does not fit into memory the work is done in tiles, with a warning. Source: ComfyUI comfy/sd.py, VAE.
class VaeCoding {
 public:
  VaeCoding(const Vae& vae, streaming::Engine& engine) : loaded_(*vae.loaded), engine_(engine) {}

  /// Tiles in time of a video autoencoder: latent frames when decoding, frames when encoding.
  struct Frames {
    std::int64_t at_once = 9999;
    std::int64_t overlap = 1;
  };

  /// Error(Shape) that names the VAE's file where the latent belongs to another model.
  at::Tensor decode(const at::Tensor& latent);
  /// One clip of a video autoencoder as the network gives it, for tiles that are blended before they
  /// are cut to what a picture can have: latents [1, C, T, h, w] -> [1, 3, T', H, W], -1..1 and a
  /// little beyond.
  at::Tensor decode_raw(const at::Tensor& latent);
  at::Tensor decode_tiled(const at::Tensor& latent, const models::vae::TileSize& tile,
                          const Frames& frames,
                          const models::vae::TileProgress& progress = nullptr);
  /// Sides that are no multiples of the factor are cut at the centre; channels beyond three are
  /// left out.
  at::Tensor encode(const at::Tensor& image);
  at::Tensor encode_tiled(const at::Tensor& image, const models::vae::TileSize& tile,
                          const Frames& frames,
                          const models::vae::TileProgress& progress = nullptr);

  models::VaeShape shape() const { return loaded_.network->shape(); }
  /// The autoencoder's file, for errors.
  std::string file() const;
  /// Pixels a latent cell, each way.
  std::int64_t factor() const { return shape().downscale; }

 private:
  at::Device device() const;
  bool video() const { return shape().dimensions == 3; }
  at::Tensor fitting_latent(const at::Tensor& latent) const;
  at::Tensor pixels_of(const at::Tensor& image) const;
  at::Tensor blank_image(const at::Tensor& latent) const;
  at::Tensor blank_latent(const at::Tensor& pixels) const;
  at::Tensor decoded_clips(const at::Tensor& latent) const;
  streaming::Engine::Use prepare(bool decode, std::vector<std::int64_t> shape);

  LoadedVae& loaded_;
  streaming::Engine& engine_;
};

/// With the autoencoder that is linked to the node's input "vae". Error(Usage) where its checkpoint
/// holds none.
VaeCoding vae_coding_of(graph::Call& call);

}  // namespace distorch::nodes
