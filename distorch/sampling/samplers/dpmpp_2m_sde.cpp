// DPM-Solver++(2M) for the SDE: second order from the step before, noise from one Brownian path.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

enum class Correction { Midpoint, Heun };

at::Tensor dpmpp_2m_sde(Denoiser& model, at::Tensor x, const Sigmas& given,
                        const SamplerContext& context, Correction correction) {
  if (given.size() <= 1) {
    return x;
  }
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto noise = brownian_noise(x, given, context.seed);
  const HalfLogSnr snr(model.model_sampling());
  const Sigmas sigmas = offset_first_sigma(given, model.model_sampling());
  at::Tensor before;
  float h_before = 0;

  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    const float to = snr.of(sigmas[i + 1]);
    const float h = to - snr.of(sigmas[i]);
    const float h_eta = h * (eta + 1);
    const float alpha = sigmas[i + 1] * f32::exp(to);
    const float taken = -f32::expm1(-h_eta);
    x = x * (sigmas[i + 1] / sigmas[i] * f32::exp(-h * eta)) + denoised * (alpha * taken);
    if (before.defined()) {
      const float ratio = h_before / h;
      const float share = correction == Correction::Heun
                              ? alpha * (taken / -h_eta + 1) * (1 / ratio)
                              : 0.5f * alpha * taken * (1 / ratio);
      x = x + (denoised - before) * share;
    }
    if (eta > 0 && s_noise > 0) {
      const float spread = f32::sqrt(-f32::expm1(-2 * h * eta));
      x = x + (*noise)(sigmas[i], sigmas[i + 1]) * sigmas[i + 1] * spread * s_noise;
    }
    before = denoised;
    h_before = h;
  }
  return x;
}

}  // namespace

at::Tensor sample_dpmpp_2m_sde(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                               const SamplerContext& context) {
  return dpmpp_2m_sde(model, std::move(x), sigmas, context, Correction::Midpoint);
}

at::Tensor sample_dpmpp_2m_sde_heun(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                    const SamplerContext& context) {
  return dpmpp_2m_sde(model, std::move(x), sigmas, context, Correction::Heun);
}

}  // namespace distorch::sampling
