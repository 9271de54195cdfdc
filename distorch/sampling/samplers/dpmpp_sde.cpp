// DPM-Solver++ for the SDE, two evaluations a step, noise from one Brownian path.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {

at::Tensor sample_dpmpp_sde(Denoiser& model, at::Tensor x, const Sigmas& given,
                            const SamplerContext& context) {
  if (given.size() <= 1) {
    return x;
  }
  const double part = context.options.inner_part;
  const double share = 1 / (2 * part);  // of the inner evaluation; with 1/2 only it counts
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  const bool noisy = eta > 0 && s_noise > 0;
  auto noise = brownian_noise(x, given, context.seed);
  const HalfLogSnr snr(model.model_sampling());
  const Sigmas sigmas = offset_first_sigma(given, model.model_sampling());

  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    const float from = snr.of(sigmas[i]);
    const float to = snr.of(sigmas[i + 1]);
    const float inner = from + static_cast<float>(part) * (to - from);
    const float sigma_inner = snr.sigma(inner);
    const float alpha_from = sigmas[i] * f32::exp(from);
    // One exponential step to `target`, from x with estimate `x0`, and the noise that belongs to
    // it.
    auto step_to = [&](float target, float sigma_target, const at::Tensor& x0) {
      const float alpha = sigma_target * f32::exp(target);
      const AncestralStep step = ancestral_step(f32::exp(-from), f32::exp(-target), eta);
      const float h = -f32::log(step.down) - from;
      at::Tensor moved = x * (alpha / alpha_from * f32::exp(-h)) - x0 * (alpha * f32::expm1(-h));
      return noisy ? moved + (*noise)(sigmas[i], sigma_target) * alpha * s_noise * step.up : moved;
    };
    const at::Tensor half = step_to(inner, sigma_inner, denoised);
    at::Tensor second = model(half, sigma_inner);
    if (share != 1) {
      second = denoised * (1 - share) + second * share;
    }
    x = step_to(to, sigmas[i + 1], second);
  }
  return x;
}

}  // namespace distorch::sampling
