#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "distorch/models/clip/config.h"
#include "distorch/models/diffusion_model.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// What the network's output means.
enum class Prediction { Epsilon, Velocity };

/// How latents of a family relate to what its VAE decodes.
struct LatentFormat {
  double scale_factor = 0.18215;  // model's latent = (VAE's latent - shift) · scale_factor
  double shift = 0.0;
  std::int64_t channels = 4;
  std::int64_t downscale = 8;  // pixels a cell
  // by channel: red, green, blue of a fast preview, -1..1
  std::vector<std::array<double, 3>> rgb_factors;
  std::array<double, 3> rgb_bias = {0, 0, 0};
};

/// A kind of diffusion model. To add one: a folder here, a line in catalog.cpp.
struct ModelFamily {
  const char* name;  // "SD1.x"
  /// Whether these are its tensors (original names, prefix removed). Looks at names and shapes
  /// only.
  bool (*matches)(const weights::Checkpoint& unet);
  Prediction (*prediction)(const weights::Checkpoint& unet);
  /// Declares the model; reads nothing but shapes.
  std::unique_ptr<DiffusionModel> (*make)(const weights::Checkpoint& unet);
  clip::TextKind text;
  LatentFormat latent;
};

/// The list, in the order of asking.
const std::vector<ModelFamily>& families();

/// The family of a UNet's tensors. Error(Format) naming the file and the known families where none
/// matches.
const ModelFamily& detect_family(const weights::Checkpoint& unet);

/// The diffusion model's tensors of a file, under original names without a prefix: of a whole
/// checkpoint
/// ("model.diffusion_model."), of a file of its own with or without that prefix, or with diffusers
/// names. Empty where the file has none.
weights::Checkpoint unet_part(const weights::Checkpoint& file);

/// A whole checkpoint in its parts; `text` and `vae` are empty where the file lacks them.
struct CheckpointParts {
  const ModelFamily* family;
  weights::Checkpoint unet, text, vae;
};

/// Error(Format) where the file holds no diffusion model of a known family.
CheckpointParts split_checkpoint(const weights::Checkpoint& file);

}  // namespace distorch::models
