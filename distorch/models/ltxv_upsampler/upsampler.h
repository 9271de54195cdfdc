#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::ltxv_upsampler {

/// Shape of a network that makes latents of LTX-Video larger. Sizes of the published ones are the
/// defaults.
struct Config {
  std::int64_t channels = 128;  // of the latent
  std::int64_t width = 512;     // between the first and the last layer
  std::int64_t blocks = 4;      // before and behind the step up, each
  std::int64_t space = 2;       // times as many cells, each way
  std::int64_t time = 1;        // times as many frames, less one
};

/// The network's tensors of a file ("post_upsample_res_blocks.0.conv2.bias"). Empty where it has
/// none.
weights::Checkpoint part_of(const weights::Checkpoint& file);
/// Reads the sizes off the shapes. Errors: Error(MissingWeight), Error(Shape); Error(Format) for
/// forms that are not published with LTX-Video: by the frame, or by a fraction.
Config config_of(const weights::Checkpoint& part);

/// Makes latents larger in space (2 x 2 cells to one) or in time (frames between those that are
/// there). Blocks: "in", "res_blocks.{i}", "upsampler", "post_upsample_res_blocks.{i}", "out".
/// Source: ComfyUI comfy/ldm/lightricks/latent_upsampler.py.
class Upsampler {
 public:
  explicit Upsampler(const Config& config);
  ~Upsampler();

  const Config& config() const { return config_; }
  weights::Manifest& manifest() { return manifest_; }
  /// latent [B, C, T, h, w] in the autoencoder's own scale, before means and deviations are taken
  /// out -> [B, C, T · time - (time - 1), h · space, w · space] float32. Error(Shape) where it is of
  /// other channels.
  at::Tensor forward(const at::Tensor& latent) const;

 private:
  struct Layers;

  Config config_;
  weights::Manifest manifest_;
  std::unique_ptr<const Layers> layers_;
};

}  // namespace distorch::models::ltxv_upsampler
