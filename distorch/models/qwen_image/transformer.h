#pragma once
#include <memory>
#include <string>

#include "distorch/models/modulated.h"
#include "distorch/models/network.h"
#include "distorch/models/qwen_image/block.h"
#include "distorch/models/qwen_image/config.h"
#include "distorch/weights/manifest.h"

namespace distorch::models::qwen_image {

/// Reference pictures that one call may have.
inline constexpr int kMostReferences = 16;

/// Names of inputs.
std::string reference_name(int index);  // "reference_latents.0"
std::string residual_name(int block);   // "control_block.0"
/// "reference_method": a ReferenceMethod as a number.
inline constexpr const char* kReferenceMethod = "reference_method";

/// The transformer of Qwen-Image and Qwen-Image-Edit. Inputs: the latent [B, C, T, h, w], the
/// timestep (sigma), the text's states; optionally a mask of text tokens (1 counts), reference
/// latents in the network's scale and how they stand, residuals of a ControlNet behind each block
/// [B, n, width]. Skipped parts: "double_blocks.7". Blocks: "in" (embeddings), every joint block,
/// "out"; it may be given its modulations (modulated.h). Source: Qwen-Image (Wu et al. 2025); ComfyUI
/// comfy/ldm/qwen_image/model.py.
class Transformer final : public Network, public Modulated {
 public:
  explicit Transformer(const Config& config);
  ~Transformer() override;

  const Config& config() const { return config_; }
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;
  std::vector<std::string> modulating_inputs() const override { return {}; }
  std::int64_t modulation_numbers(const Inputs& call) const override;
  at::Tensor modulations(const Inputs& call,
                         const std::vector<at::Tensor>& timesteps) const override;

 private:
  struct Parts;

  Config config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<const Parts> parts_;
};

}  // namespace distorch::models::qwen_image
