#pragma once
#include <memory>

#include "distorch/models/ltxv_vae/config.h"
#include "distorch/models/vae_network.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::ltxv_vae {

/// The autoencoder of LTX-Video, 0.9, 0.9.1 and 0.9.5 on. The decoder looks ahead, so that a clip
/// passes whole; tiles in time bound the memory (vae/tiled_video.h). Where it is told of noise, the
/// latent gets 2.5 % of it, which is the same for every clip of a size: seed 42, as Lightricks' own
/// loader draws it. Blocks: every residual block, resize, time embedding, first and last convolution
/// of encoder and decoder, in that order, and between both what scales latents. Source: ComfyUI
/// comfy/ldm/lightricks/vae/causal_video_autoencoder.py.
class Autoencoder final : public VaeNetwork {
 public:
  explicit Autoencoder(const Config& config);
  ~Autoencoder() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  VaeShape shape() const override;
  /// frames [B, 3, 1 + 8 · n, H, W], H and W multiples of downscale -> [B, C, 1 + n, h, w].
  at::Tensor encode_mean(const at::Tensor& pixels) const override;
  /// latents [B, C, T, h, w] -> [B, 3, 1 + (T - 1) · 8, H, W].
  at::Tensor decode_pixels(const at::Tensor& latent) const override;

 private:
  struct Encoder;
  struct Decoder;
  struct Parts;

  Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::ltxv_vae
