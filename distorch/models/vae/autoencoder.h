#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>

#include "distorch/models/vae/config.h"
#include "distorch/models/vae_network.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::vae {

/// The distribution over latents that the encoder gives; both [B, latent_channels, h/f, w/f]
/// float32, logvar within -30..20.
struct Posterior {
  at::Tensor mean, logvar;
  /// mean + exp(logvar / 2) · noise; noise of the mean's shape comes from the caller. ComfyUI takes
  /// the mean alone.
  at::Tensor sample(const at::Tensor& noise) const;
};

/// KL autoencoder of Stable Diffusion, SD 3 and FLUX, f = config().downscale() pixels a latent cell.
/// Latents here are the decoder's own: the latent format's scale factor is the caller's business.
/// Of FLUX.2, encode_mean() gives and decode_pixels() takes 2x2 of these cells as one of four times
/// the channels, normalised.
/// Blocks: every residual block, attention, resize, first and last convolution of encoder and
/// decoder, in that order. Source: Rombach et al. 2022; ComfyUI
/// comfy/ldm/modules/diffusionmodules/model.py.
class Autoencoder : public VaeNetwork {
 public:
  explicit Autoencoder(const VaeConfig& config);
  ~Autoencoder() override;

  const VaeConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  VaeShape shape() const override {
    auto patch = config_.patch();
    return {config_.latent_channels * patch * patch, config_.image_channels,
            config_.downscale() * patch, 1, 2};
  }
  at::Tensor encode_mean(const at::Tensor& pixels) const override;
  at::Tensor decode_pixels(const at::Tensor& latent) const override;

  /// For tests: called with "encoder.down.L", "encoder.mid", "decoder.conv_in", "decoder.mid",
  /// "decoder.up.L".
  using Probe = std::function<void(const std::string& stage, const at::Tensor& output)>;

  /// image [B, 3, H, W], -1..1; H and W multiples of f. Error(Shape) otherwise.
  Posterior encode(const at::Tensor& image, const Probe& probe = nullptr) const;
  /// latent [B, latent_channels, h, w] -> [B, 3, h·f, w·f] float32, about -1..1, not clamped.
  at::Tensor decode(const at::Tensor& latent, const Probe& probe = nullptr) const;

 private:
  struct Encoder;
  struct Decoder;
  struct PatchNorm;

  VaeConfig config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Encoder> encoder_;
  std::unique_ptr<const PatchNorm> patch_norm_;  // null: latents outside are the network's
  std::unique_ptr<const Decoder> decoder_;
};

}  // namespace distorch::models::vae
