#pragma once
#include <memory>

#include "distorch/models/hunyuan_vae/config.h"
#include "distorch/models/vae_network.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::hunyuan_vae {

/// The autoencoder of HunyuanVideo: its convolutions see no later frame, but its norms and its
/// attention see all of a clip, so that a clip passes whole; tiles in time bound the memory
/// (vae/tiled_video.h). Blocks: every residual block, attention, resize, first and last convolution
/// of encoder and decoder, in that order. Source: ComfyUI
/// comfy/ldm/modules/diffusionmodules/model.py with conv3d.
class Autoencoder final : public VaeNetwork {
 public:
  explicit Autoencoder(const Config& config);
  ~Autoencoder() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  VaeShape shape() const override;
  /// frames [B, 3, T, H, W], H and W multiples of downscale -> [B, C, 1 + (T - 1) / 4, h, w].
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

}  // namespace distorch::models::hunyuan_vae
