#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "distorch/models/lora_names.h"
#include "distorch/models/network.h"
#include "distorch/models/text_encoder.h"
#include "distorch/models/vae_network.h"
#include "distorch/sampling/conditioning.h"
#include "distorch/sampling/guidance.h"
#include "distorch/sampling/model_sampling.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// How latents of a family relate to what its VAE decodes.
struct LatentFormat {
  double scale_factor = 0.18215;  // model's latent = (VAE's latent - shift) · scale_factor
  double shift = 0.0;
  /// By channel, in place of scale_factor and shift: (latent - mean) · scale_factor / deviation.
  std::vector<double> mean, deviation;
  std::int64_t channels = 4;
  std::int64_t downscale = 8;  // pixels a cell
  int dimensions = 2;          // 2: [B, C, h, w]; 3: [B, C, T, h, w]
  // by channel: red, green, blue of a fast preview, -1..1
  std::vector<std::array<double, 3>> rgb_factors;
  std::array<double, 3> rgb_bias = {0, 0, 0};

  at::Tensor into_network(const at::Tensor& latent) const;
  at::Tensor out_of_network(const at::Tensor& latent) const;
};

/// The autoencoder of a file: its tensors and how it is made.
struct VaePart {
  weights::Checkpoint part;  // empty: the file has none
  std::function<std::unique_ptr<VaeNetwork>()> make;
  bool empty() const { return part.empty(); }
};

/// One diffusion model of a file, told by its tensors: everything that differs between kinds of
/// models. Reads names and shapes, and small tensors where those do not tell enough. To add a kind:
/// a folder here with a class of this, and a line in catalog.cpp.
class Family {
 public:
  virtual ~Family() = default;

  virtual std::string name() const = 0;  // "SD1.x"
  /// The diffusion model's tensors under the network's names.
  virtual const weights::Checkpoint& diffusion() const = 0;
  /// Declares the network; every call makes another.
  virtual std::unique_ptr<Network> make_network() const = 0;
  virtual std::shared_ptr<const sampling::ModelSampling> sampling() const = 0;
  virtual const LatentFormat& latent() const = 0;
  /// How LoRA files spell the network's weights.
  virtual LoraNames lora_names(const weights::Manifest& network) const = 0;
  /// The text encoders of a whole checkpoint; empty where it has none.
  virtual TextRecipe text(const weights::Checkpoint& file) const = 0;
  /// The autoencoder of a whole checkpoint; empty where it has none.
  virtual VaePart vae(const weights::Checkpoint& file) const = 0;
  /// Whether what a noise mask keeps of a latent is shown to the network as it is, and not with the
  /// noise of the step: for networks that are told the noise level of every frame.
  virtual bool keeps_given_part_clean() const { return false; }
  /// The value of one of the network's inputs (Source::Conditioning) for one conditioning, in
  /// context.noise's batch where it has one, on any device. Neither value nor number: there is none.
  /// Also asked with a context without data (at::kMeta), before a run, for the shape alone.
  virtual sampling::ModelInput encode(const InputSpec& spec, const sampling::ConditioningItem& item,
                                      const sampling::EncodeContext& context) const = 0;
};

}  // namespace distorch::models
