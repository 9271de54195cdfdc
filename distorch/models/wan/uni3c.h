#pragma once
#include <memory>

#include "distorch/models/network.h"
#include "distorch/models/wan/config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::wan {

/// Shape of a Uni3C control network.
struct Uni3CConfig {
  std::int64_t width = 1024;
  std::int64_t mlp_width = 8192;
  std::int64_t layers = 20;
  std::int64_t render_channels = 16;  // of the latent of the rendered video
  std::int64_t patch_width = 5120;    // of its tokens before they come to its own width
  bool narrows = true;                // whether a matrix brings them there
  std::int64_t time_width = 5120;     // of the model's embedding of the noise level
  std::int64_t model_width = 5120;    // of the model that it steers

  static constexpr std::int64_t kHeadWidth = 64;
  /// Channels of what the model gets: the noisy latent and four of the mask of given frames.
  static constexpr std::int64_t kSeenChannels = 20;
};

/// Reads the sizes off the shapes. Error(Format) naming the file and what it lacks where it holds no
/// such network, Error(MissingWeight), Error(Shape) naming the tensor.
Uni3CConfig uni3c_config(const weights::Checkpoint& file);

/// Narrow layers that see a video rendered along a camera's way beside what the model itself gets,
/// with the model's own embedding of the noise level. A matrix of each layer's tokens is what the
/// model gets behind the layer of the same number. Inputs: "x" (what the model gets), "render" (the
/// rendered video's latent, of the same sizes) and "time". Blocks: "in" and each layer with its
/// matrix. The file's layers for a mask and a camera's rays are not read: the wrapper's nodes have
/// no way to give either. Source: Uni3C (Cao et al. 2025), as in ComfyUI-WanVideoWrapper,
/// uni3c/controlnet.py.
class Uni3C final : public Network {
 public:
  explicit Uni3C(const Uni3CConfig& config);
  ~Uni3C() override;

  const Uni3CConfig& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }
  /// All residuals [layers, B, tokens, model_width] in the compute dtype.
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;

 private:
  struct Parts;

  Uni3CConfig config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::wan
