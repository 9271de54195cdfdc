#pragma once
#include <memory>
#include <string>

#include "distorch/models/family.h"
#include "distorch/models/vae_network.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

/// TAESD and kin: small autoencoders that stand in for a model's own, as a VAE and for previews.
namespace distorch::models::taesd {

struct Config {
  std::int64_t width = 64;  // of all features
  std::int64_t latent_channels = 4;
  // The network's latent = (the VAE's latent - shift) · scale.
  double scale = 1.0;
  double shift = 0.0;
  bool encoder = true;  // false: it only decodes
};

/// The published ones: "taesd", "taesdxl", "taesd3", "taef1".
const std::vector<std::string>& names();
/// The name of the one for latents of this format; "" where there is none.
std::string name_for(const LatentFormat& format);

/// The tensors of one in the files FOLDER/NAME_encoder.* and NAME_decoder.*; an empty encoder: it
/// only decodes.
weights::Checkpoint joined(const weights::Checkpoint& encoder, const weights::Checkpoint& decoder);
/// Those of a file that holds both ("taesd_encoder.", "taesd_decoder."); empty where it holds none.
weights::Checkpoint part_of(const weights::Checkpoint& file);
/// Sizes off the shapes; scale and shift from the file's numbers, where it has any.
Config config_of(const weights::Checkpoint& part);
/// Scale and shift of the one called `name`. Error(Usage) for another name.
Config config_of(const weights::Checkpoint& part, const std::string& name);

/// Encoder and decoder of convolutions alone. Latents outside are the VAE's, as of the model's own
/// VAE. Blocks: encoder, decoder. Source: madebyollin/taesd; ComfyUI comfy/taesd/taesd.py.
class Autoencoder : public VaeNetwork {
 public:
  explicit Autoencoder(const Config& config);
  ~Autoencoder() override;

  weights::Manifest& manifest() override { return manifest_; }
  VaeShape shape() const override { return {config_.latent_channels, 3, 8, 1, 2}; }
  at::Tensor encode_mean(const at::Tensor& pixels) const override;
  at::Tensor decode_pixels(const at::Tensor& latent) const override;
  /// latent in the network's scale [B, C, h, w] -> pixels 0..1.
  at::Tensor decode_scaled(const at::Tensor& latent) const;

 private:
  struct Encoder;
  struct Decoder;

  Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<const Decoder> decoder_;
};

}  // namespace distorch::models::taesd
