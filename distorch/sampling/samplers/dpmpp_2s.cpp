// DPM-Solver++(2S) with ancestral noise (arXiv:2211.01095): a step through the middle in log sigma.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

float time_of(float sigma) { return -f32::log(sigma); }
float sigma_at(float time) { return f32::exp(-time); }

at::Tensor flow_2s_ancestral(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                             const SamplerContext& context) {
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto noise = gaussian_noise(x, context.seed);
  auto lambda = [](float sigma) { return f32::log((1 - sigma) / sigma); };
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const FlowAncestralStep step = flow_ancestral_step(sigmas[i], sigmas[i + 1], eta);
    if (sigmas[i + 1] == 0) {
      x = x + derivative(x, sigmas[i], denoised) * (step.down - sigmas[i]);
      continue;
    }
    float middle = 0.9999f;  // at sigma 1 lambda has no value
    if (sigmas[i] != 1.0f) {
      const float from = lambda(sigmas[i]);
      middle = 1 / (f32::exp(from + 0.5f * (lambda(step.down) - from)) + 1);
    }
    const float half = middle / sigmas[i];
    const at::Tensor at_middle = x * half + denoised * (1 - half);
    const float whole = step.down / sigmas[i];
    x = x * whole + model(at_middle, middle) * (1 - whole);
    if (eta > 0) {
      x = x * step.keep + (*noise)(sigmas[i], sigmas[i + 1]) * s_noise * step.renoise;
    }
  }
  return x;
}

}  // namespace

at::Tensor sample_dpmpp_2s_ancestral(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                     const SamplerContext& context) {
  if (model.model_sampling().is_flow()) {
    return flow_2s_ancestral(model, std::move(x), sigmas, context);
  }
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto noise = gaussian_noise(x, context.seed);
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const AncestralStep step = ancestral_step(sigmas[i], sigmas[i + 1], eta);
    if (step.down == 0) {
      x = x + derivative(x, sigmas[i], denoised) * (step.down - sigmas[i]);
    } else {
      const float t = time_of(sigmas[i]);
      const float h = time_of(step.down) - t;
      const float middle = t + 0.5f * h;
      const at::Tensor at_middle =
          x * (sigma_at(middle) / sigma_at(t)) - denoised * f32::expm1(-h * 0.5f);
      x = x * (sigma_at(t + h) / sigma_at(t)) - model(at_middle, sigma_at(middle)) * f32::expm1(-h);
    }
    if (sigmas[i + 1] > 0) {
      x = x + (*noise)(sigmas[i], sigmas[i + 1]) * s_noise * step.up;
    }
  }
  return x;
}

at::Tensor sample_dpmpp_2s_ancestral_cfg_pp(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                            const SamplerContext& context) {
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto noise = gaussian_noise(x, context.seed);
  for (int i = 0; i < step_count(sigmas); ++i) {
    const GuidedPair pair = estimate_pair(model, x, sigmas, i, context);
    const AncestralStep step = ancestral_step(sigmas[i], sigmas[i + 1], eta);
    if (step.down == 0) {
      x = pair.denoised + derivative(x, sigmas[i], pair.uncond) * step.down;
    } else {
      const float t = time_of(sigmas[i]);
      const float h = time_of(step.down) - t;
      const float middle = t + 0.5f * h;
      const at::Tensor at_middle =
          (x + (pair.denoised - pair.uncond)) * (sigma_at(middle) / sigma_at(t)) -
          pair.denoised * f32::expm1(-h * 0.5f);
      // The reference shifts the second half by the negative of the newest evaluation.
      const GuidedPair second = model.with_uncond(at_middle, sigma_at(middle));
      x = (x + (pair.denoised - second.uncond)) * (sigma_at(t + h) / sigma_at(t)) -
          second.denoised * f32::expm1(-h);
    }
    if (sigmas[i + 1] > 0) {
      x = x + (*noise)(sigmas[i], sigmas[i + 1]) * s_noise * step.up;
    }
  }
  return x;
}

}  // namespace distorch::sampling
