// Euler steps along the probability flow (Karras et al. 2022, algorithm 2 without churn) and their
// ancestral form.
#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

at::Tensor flow_euler_ancestral(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                const SamplerContext& context) {
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto noise = gaussian_noise(x, context.seed);
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    const FlowAncestralStep step = flow_ancestral_step(sigmas[i], sigmas[i + 1], eta);
    const float ratio = step.down / sigmas[i];
    x = x * ratio + denoised * (1 - ratio);
    if (eta > 0) {
      x = x * step.keep + (*noise)(sigmas[i], sigmas[i + 1]) * s_noise * step.renoise;
    }
  }
  return x;
}

}  // namespace

at::Tensor sample_euler(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                        const SamplerContext& context) {
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    x = x + derivative(x, sigmas[i], denoised) * (sigmas[i + 1] - sigmas[i]);
  }
  return x;
}

at::Tensor sample_euler_ancestral(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                  const SamplerContext& context) {
  if (model.model_sampling().is_flow()) {
    return flow_euler_ancestral(model, std::move(x), sigmas, context);
  }
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto noise = gaussian_noise(x, context.seed);
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const AncestralStep step = ancestral_step(sigmas[i], sigmas[i + 1], eta);
    if (step.down == 0) {
      x = denoised;
      continue;
    }
    const at::Tensor moved = x + derivative(x, sigmas[i], denoised) * (step.down - sigmas[i]);
    x = moved + (*noise)(sigmas[i], sigmas[i + 1]) * s_noise * step.up;
  }
  return x;
}

}  // namespace distorch::sampling
