#pragma once
#include <memory>

#include "distorch/models/flux/config.h"
#include "distorch/models/modulated.h"
#include "distorch/models/network.h"

namespace distorch::models::flux {

/// Pictures that FLUX looks at beside the one it makes, at most.
inline constexpr std::int64_t kMostReferences = 16;
/// The input that holds reference picture `index`.
std::string reference_name(std::int64_t index);

/// FLUX.1 and FLUX.2. Inputs:
///   x                    [B, C, h, w], the noisy latent
///   timestep             [B], 0 .. 1
///   context              [B, Lt, context width]
///   vector               [B, vector width], the pooled text; zeros without one
///   guidance             [B]; without it the model is not told any
///   concat               [B, further channels, h, w], where the model has them, or a LoRA gives
///                        them to it
///   attention_mask       [B, N, N] added to the scores of pairs of tokens, text first, then the
///                        picture; references behind them get 0
///   control_block.i      [B, n, hidden] added to the first n tokens of the picture behind every double
///                        block k with k mod (how many of these there are) = i
///   image_prompt.i       [B, 2 · double blocks, groups, tokens, hidden] of image_prompt.h
///   reference_latents.i  [B, C, any, any]
///   reference_method     a ReferenceMethod as number; without it the model's own
/// and where the configuration says so those of reference_cache.h and modulated.h.
/// Source: ComfyUI comfy/ldm/flux/model.py. Skipped blocks: "double_blocks.3", "single_blocks.7".
class Flux final : public Network, public Modulated {
 public:
  explicit Flux(const Config& config);
  ~Flux() override;
  weights::Manifest& manifest() override { return manifest_; }
  const InputSpecs& inputs() const override { return inputs_; }
  at::Tensor apply(const Inputs& inputs, const Patches& patches = {}) const override;
  std::vector<std::string> modulating_inputs() const override { return {"vector", "guidance"}; }
  std::int64_t modulation_numbers(const Inputs& call) const override;
  at::Tensor modulations(const Inputs& call,
                         const std::vector<at::Tensor>& timesteps) const override;

 private:
  struct Parts;

  Config config_;
  InputSpecs inputs_;
  weights::Manifest manifest_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace distorch::models::flux
