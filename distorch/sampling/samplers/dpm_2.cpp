// A midpoint in log sigma for every step, in the manner of DPM-Solver-2 (arXiv:2206.00927).
#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

// From sigma to `to`, along the slope at the middle.
at::Tensor midpoint_step(Denoiser& model, const at::Tensor& x, const at::Tensor& slope, float sigma,
                         float to) {
  const float middle = between_in_log(sigma, to, 0.5f);
  const at::Tensor half = x + slope * (middle - sigma);
  return x + derivative(half, middle, model(half, middle)) * (to - sigma);
}

}  // namespace

at::Tensor sample_dpm_2(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                        const SamplerContext& context) {
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const at::Tensor slope = derivative(x, sigmas[i], denoised);
    if (sigmas[i + 1] == 0) {
      x = x + slope * (sigmas[i + 1] - sigmas[i]);
    } else {
      x = midpoint_step(model, x, slope, sigmas[i], sigmas[i + 1]);
    }
  }
  return x;
}

at::Tensor sample_dpm_2_ancestral(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                  const SamplerContext& context) {
  const bool flow = model.model_sampling().is_flow();
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto noise = gaussian_noise(x, context.seed);
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const at::Tensor slope = derivative(x, sigmas[i], denoised);
    const AncestralStep plain = ancestral_step(sigmas[i], sigmas[i + 1], eta);
    const FlowAncestralStep step = flow ? flow_ancestral_step(sigmas[i], sigmas[i + 1], eta)
                                        : FlowAncestralStep{plain.down, 1.0f, plain.up};
    if (step.down == 0) {
      x = x + slope * (step.down - sigmas[i]);
      continue;
    }
    x = midpoint_step(model, x, slope, sigmas[i], step.down);
    x = (flow ? x * step.keep : x) + (*noise)(sigmas[i], sigmas[i + 1]) * s_noise * step.renoise;
  }
  return x;
}

}  // namespace distorch::sampling
