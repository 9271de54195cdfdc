#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "distorch/weights/manifest.h"

namespace distorch::models {

/// How the latents of an autoencoder lie to its pictures.
struct VaeShape {
  std::int64_t latent_channels = 4;
  std::int64_t image_channels = 3;
  std::int64_t downscale = 8;       // pixels a latent cell, each way
  std::int64_t time_downscale = 1;  // frames a latent frame, after the first
  int dimensions = 2;               // 2: pictures [B, C, h, w]; 3: video [B, C, T, h, w]
  /// Of video: every frame of a clip counts for all others, so that a clip passes whole and memory
  /// grows with it. Else it is a VideoVae (video_vae.h).
  bool whole_clips = false;
};

/// An autoencoder of pictures or video. Latents here are its own: the latent format's scale factor
/// is the caller's business.
class VaeNetwork {
 public:
  virtual ~VaeNetwork() = default;
  virtual weights::Manifest& manifest() = 0;
  virtual VaeShape shape() const = 0;
  /// pixels [B, 3, (T,) H, W], -1..1 -> latents float32, the mean of the posterior.
  virtual at::Tensor encode_mean(const at::Tensor& pixels) const = 0;
  /// latents -> pixels float32, about -1..1, not clamped.
  virtual at::Tensor decode_pixels(const at::Tensor& latent) const = 0;
};

}  // namespace distorch::models
