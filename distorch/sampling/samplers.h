#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/sampling/denoiser.h"

namespace distorch::sampling {

/// What a sampler tells after each evaluation that counts as a step.
struct StepEvent {
  int step;   // from 0
  int total;  // steps planned; dpm_adaptive may take more or fewer
  float sigma;
  const at::Tensor& x;         // the noisy latent of this step
  const at::Tensor& denoised;  // the model's estimate of the clean latent
};
using StepCallback = std::function<void(const StepEvent&)>;

struct SamplerContext {
  std::uint64_t seed = 0;
  /// Share of fresh noise a step, and a factor on that noise; a sampler's own default where unset.
  std::optional<double> eta;
  std::optional<double> s_noise;
  StepCallback on_step;

  /// Called by samplers: throws Error(Interrupted) when asked to stop, else calls on_step.
  void report(const StepEvent& event) const;
};

/// x: latent with noise of level sigmas[0]; the result has level sigmas.back().
using SamplerFunction = at::Tensor(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                   const SamplerContext& context);

struct Sampler {
  std::string_view name;
  SamplerFunction* sample;
  /// Inpainting re-noises the kept part with noise of its own (seed + 1) in place of the starting
  /// noise.
  bool fresh_inpaint_noise = false;
};

/// Every sampler of ComfyUI's KSampler list, in its order.
const std::vector<Sampler>& samplers();
std::vector<std::string> sampler_names();
/// Error(Usage) that lists the names where it is none of them.
const Sampler& find_sampler(std::string_view name);

}  // namespace distorch::sampling
