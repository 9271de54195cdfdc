#pragma once
#include <array>
#include <memory>

#include "distorch/models/video_vae.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

/// TAEHV and kin: small autoencoders of video that stand in for a model's own.
namespace distorch::models::taehv {

struct Config {
  std::int64_t latent_channels = 16;
  std::int64_t patch = 1;  // pixels each way that are one of the network's
  double scale = 1.0;      // the network's latent = the VAE's latent · scale
  std::int64_t encoder_width = 64;
  std::array<std::int64_t, 4> decoder_widths = {256, 128, 64, 64};
  /// By level: frames that become one, or one that becomes so many.
  std::array<std::int64_t, 3> encoder_frames = {2, 2, 1}, decoder_frames = {1, 2, 2};

  std::int64_t time_downscale() const;
};

/// The tensors of one for the latents of Wan 2.1 or 2.2; empty where the file holds none.
weights::Checkpoint part_of(const weights::Checkpoint& file);
/// Sizes off the shapes. Of latents of 16 channels the type of the numbers tells the scale, as in
/// ComfyUI: float16 is HunyuanVideo's, everything else Wan's. Error(MissingWeight), Error(Shape).
Config config_of(const weights::Checkpoint& part);

/// Encoder and decoder of convolutions that see the frame before. Blocks: encoder, decoder. Source:
/// madebyollin/taehv; ComfyUI 0.33 comfy/taesd/taehv.py.
class Autoencoder final : public VideoVae {
 public:
  explicit Autoencoder(const Config& config);
  ~Autoencoder() override;

  weights::Manifest& manifest() override { return manifest_; }
  VaeShape shape() const override;
  /// Sides of frames are multiples of downscale.
  std::unique_ptr<ClipCoding> encode_clip() const override;
  std::unique_ptr<ClipCoding> decode_clip() const override;

 private:
  struct Encoder;
  struct Decoder;
  class Encoding;
  class Decoding;

  Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<const Decoder> decoder_;
};

}  // namespace distorch::models::taehv
