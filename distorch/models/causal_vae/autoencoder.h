#pragma once
#include <memory>

#include "distorch/models/causal_vae/config.h"
#include "distorch/models/video_vae.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::causal_vae {

/// The autoencoders of Wan 2.1, Wan 2.2 and Qwen-Image: pictures are videos of one frame. Frames go
/// through the network in chunks (the first alone, then as many as one latent frame stands for), and
/// what each causal convolution has to know of the last frames it saw is kept by the ClipCoding.
/// Blocks: every residual block, attention, resize, first and last convolution of encoder and
/// decoder, in that order. Source: ComfyUI comfy/ldm/wan/vae.py and vae2_2.py.
class CausalAutoencoder : public VideoVae {
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
  std::unique_ptr<ClipCoding> encode_clip() const override;
  std::unique_ptr<ClipCoding> decode_clip() const override;

 private:
  class Encoding;
  class Decoding;
  struct Encoder;
  struct Decoder;

  Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<const Decoder> decoder_;
};

}  // namespace distorch::models::causal_vae
