#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "distorch/sampling/guidance.h"
#include "distorch/sampling/guidance_stages.h"
#include "distorch/sampling/samplers.h"
#include "distorch/sampling/schedules.h"

namespace distorch::sampling {

/// What the LATENT type of a workflow carries.
struct Latent {
  at::Tensor samples;                     // [B, C, H, W] float32 on the CPU
  at::Tensor noise_mask;                  // any size, 1 = repaint; undefined: everywhere
  std::vector<std::int64_t> batch_index;  // empty: 0, 1, 2, ...
};

/// KSampler uses the first block, KSamplerAdvanced the second as well:
///   add_noise "disable" -> add_noise = false; start_at_step, end_at_step -> start_step, last_step;
///   return_with_leftover_noise "disable" -> force_full_denoise = true; denoise stays 1.
struct KSamplerSettings {
  std::string sampler = "euler";
  std::string scheduler = "normal";
  int steps = 20;
  double cfg = 8.0;
  double denoise = 1.0;
  std::uint64_t seed = 0;

  bool add_noise = true;
  std::optional<int> start_step;
  std::optional<int> last_step;
  bool force_full_denoise = false;
  GuidanceStages stages;  // what nodes changed about the model's sampling

  std::string label = "KSampler";  // `where` of errors: the node, as the user knows it
};

/// One run. The result has the shape of latent.samples (channels and frames as the model wants
/// them), float32, on the CPU, in the scale of a LATENT. Errors: Usage (unknown sampler or
/// scheduler, steps < 1, area outside the latent), Shape, Interrupted; Internal "the latent became
/// NaN at step K of N" as soon as it is known (on a GPU: after the last step). Source: ComfyUI
/// nodes.py common_ksampler, comfy/samplers.py KSampler.sample, CFGGuider, KSAMPLER.
at::Tensor run_ksampler(X0Model& model, const KSamplerSettings& settings, const Latent& latent,
                        const Conditioning& positive, const Conditioning& negative,
                        const StepCallback& on_step = {});

/// The parts of a run that custom sampling nodes give one by one.
struct SampleRequest {
  ChosenSampler sampler;
  Sigmas sigmas;  // none: the latent comes back as it is
  std::uint64_t seed = 0;
  at::Tensor noise;         // shape of latent_image, CPU
  at::Tensor latent_image;  // LATENT scale
  at::Tensor noise_mask;    // undefined: everywhere
  GuidanceStages stages;
  std::string label = "SamplerCustom";
};
struct SampleResult {
  at::Tensor samples;
  at::Tensor denoised;  // the last step's estimate; undefined where no step was taken
};
SampleResult run_sampler(X0Model& model, const SampleRequest& request, const Guider& guider,
                         const StepCallback& on_step = {});

/// An empty latent gets the channels (and the frame dimension) of the model.
at::Tensor fix_empty_latent_channels(const X0Model& model, const at::Tensor& latent);

}  // namespace distorch::sampling
