#pragma once
#include <memory>

#include "distorch/models/causal_vae/config.h"
#include "distorch/models/vae_network.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::causal_vae {

/// The autoencoder of Wan 2.1 and Qwen-Image: pictures are videos of one frame. Frames go through
/// the network in chunks (the first alone, then as many as one latent frame stands for), and each
/// causal convolution keeps the last frames it saw between the chunks of a call. Blocks: every
/// residual block, attention, resize, first and last convolution of encoder and decoder, in that
/// order. Source: ComfyUI comfy/ldm/wan/vae.py.
class CausalAutoencoder : public VaeNetwork {
 public:
  explicit CausalAutoencoder(const Config& config);
  ~CausalAutoencoder() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  VaeShape shape() const override;
  /// pixels [B, 3, T, H, W], -1..1 -> [B, C, 1 + (T - 1) / time_downscale, h, w]; frames that make
  /// no whole latent frame are left out. Error(Shape) where the sides are no multiples of
  /// downscale.
  at::Tensor encode_mean(const at::Tensor& pixels) const override;
  /// latent [B, C, T, h, w] -> [B, 3, 1 + (T - 1) · time_downscale, H, W].
  at::Tensor decode_pixels(const at::Tensor& latent) const override;

 private:
  struct Encoder;
  struct Decoder;

  Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<const Decoder> decoder_;
};

}  // namespace distorch::models::causal_vae
