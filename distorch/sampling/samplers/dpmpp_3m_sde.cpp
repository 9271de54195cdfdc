// DPM-Solver++(3M) for the SDE: third order from the two steps before.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {

at::Tensor sample_dpmpp_3m_sde(Denoiser& model, at::Tensor x, const Sigmas& given,
                               const SamplerContext& context) {
  if (given.size() <= 1) {
    return x;
  }
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto noise = brownian_noise(x, given, context.seed);
  const HalfLogSnr snr(model.model_sampling());
  const Sigmas sigmas = offset_first_sigma(given, model.model_sampling());
  at::Tensor first_before, second_before;  // estimates one and two steps ago
  float h_1 = 0, h_2 = 0;                  // and the lengths of those steps

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
    x = x * (sigmas[i + 1] / sigmas[i] * f32::exp(-h * eta)) +
        denoised * (alpha * -f32::expm1(-h_eta));
    if (first_before.defined()) {
      const float phi_2 = f32::expm1(-h_eta) / h_eta + 1;
      const float r0 = h_1 / h;
      const at::Tensor newest = (denoised - first_before) / r0;
      if (!second_before.defined()) {
        x = x + newest * (alpha * phi_2);
      } else {
        const float r1 = h_2 / h;
        const float phi_3 = phi_2 / h_eta - 0.5f;
        const at::Tensor change = newest - (first_before - second_before) / r1;
        const at::Tensor slope = newest + change * r0 / (r0 + r1);
        x = x + slope * (alpha * phi_2) - change / (r0 + r1) * (alpha * phi_3);
      }
    }
    if (eta > 0 && s_noise > 0) {
      const float spread = f32::sqrt(-f32::expm1(-2 * h * eta));
      x = x + (*noise)(sigmas[i], sigmas[i + 1]) * sigmas[i + 1] * spread * s_noise;
    }
    second_before = first_before;
    first_before = denoised;
    h_2 = h_1;
    h_1 = h;
  }
  return x;
}

}  // namespace distorch::sampling
