#pragma once
#include <memory>
#include <vector>

#include "distorch/models/network.h"
#include "distorch/models/wan/config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::wan {

/// Shape of a ControlNet of Wan.
struct ControlNetConfig {
  /// Its own layers; in_channels are those of the latent and of the encoded video.
  Config layers;
  std::int64_t latent_channels = 16;
  /// Pixels of a side that become one cell: 8, or 16 for the latents of Wan 2.2's own autoencoder.
  std::int64_t pixels = 8;
  /// Channels of the video (3), then of what each of the three convolutions that encode it gives.
  std::vector<std::int64_t> encoder_widths;
  std::int64_t model_width = 5120;  // of the model that it steers
};

/// Its tensors under the names that the layers have in original files, from those or diffusers'
/// names. Error(Format) naming the file and what it lacks where it holds no such network.
weights::Checkpoint control_net_part(const weights::Checkpoint& file);
/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape) naming the tensor.
ControlNetConfig control_net_config(const weights::Checkpoint& part);

/// A few layers of a small Wan that see a video (edges, depths, a pose) beside the latent. A matrix of
/// each layer's tokens is its residual, and the model gets one behind every so many of its layers.
/// Inputs: the latent, a timestep for each frame or one for all, the text's states, and what encode()
/// gave. Blocks: "control_encoder", "in", and each layer with its matrix.
/// Source: TheDenk wan2.1-dilated-controlnet, wan_controlnet.py, as in ComfyUI-WanVideoWrapper.
class ControlNet final : public Network {
 public:
  explicit ControlNet(const ControlNetConfig& config);
  ~ControlNet() override;

  const ControlNetConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }

  /// video [1, 3, frames, H, W] from -1 to 1 -> "guide" [1, channels, T, h, w], which does not change
  /// from step to step. Error(Shape) for other channels.
  at::Tensor encode(const at::Tensor& video) const;
  /// All residuals [layers, B, tokens, model_width] in the compute dtype. Error(Shape) where the
  /// guide is not of the latent's frames, height and width.
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;

 private:
  struct Parts;

  ControlNetConfig config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::wan
