#pragma once
#include <memory>

#include "distorch/models/hunyuan_vae15/config.h"
#include "distorch/models/vae_network.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::hunyuan_vae15 {

/// The autoencoder of HunyuanVideo 1.5: 16 pixels a latent cell. The attention of its lowest level
/// sees all of a clip, so that a clip is coded whole; the levels above look back in time only and
/// work on one latent frame after the other, with what their convolutions remember, so that memory
/// there does not grow with the clip. Blocks: every residual block, attention, change of size, first
/// and last convolution of encoder and decoder, in that order. Source: ComfyUI
/// comfy/ldm/hunyuan_video/vae_refiner.py.
class Autoencoder final : public VaeNetwork {
 public:
  explicit Autoencoder(const Config& config);
  ~Autoencoder() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  VaeShape shape() const override;
  /// frames [B, 3, T, H, W], H and W multiples of downscale -> [B, C, 1 + (T - 1) / 4, h, w]; frames
  /// that make no whole latent frame are left out.
  at::Tensor encode_mean(const at::Tensor& pixels) const override;
  /// latents [B, C, T, h, w] -> [B, 3, 1 + (T - 1) · 4, H, W].
  at::Tensor decode_pixels(const at::Tensor& latent) const override;

 private:
  struct Encoder;
  struct Decoder;

  Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<const Decoder> decoder_;
};

}  // namespace distorch::models::hunyuan_vae15
