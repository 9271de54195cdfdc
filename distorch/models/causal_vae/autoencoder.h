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
  /// Sides of frames are multiples of downscale.
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
