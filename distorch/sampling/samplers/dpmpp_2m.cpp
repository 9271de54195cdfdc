// DPM-Solver++(2M) (arXiv:2211.01095) and its CFG++ form: second order from the step before.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {

at::Tensor sample_dpmpp_2m(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                           const SamplerContext& context) {
  at::Tensor before;
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const float t = -f32::log(sigmas[i]);
    const float t_next = -f32::log(sigmas[i + 1]);
    const float h = t_next - t;
    at::Tensor target = denoised;
    if (before.defined() && sigmas[i + 1] != 0) {
      const float ratio = (t + f32::log(sigmas[i - 1])) / h;
      const float share = 1 / (2 * ratio);
      target = denoised * (1 + share) - before * share;
    }
    x = x * (f32::exp(-t_next) / f32::exp(-t)) - target * f32::expm1(-h);
    before = denoised;
  }
  return x;
}

at::Tensor sample_dpmpp_2m_cfg_pp(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                  const SamplerContext& context) {
  at::Tensor uncond_before;
  for (int i = 0; i < step_count(sigmas); ++i) {
    const GuidedPair pair = estimate_pair(model, x, sigmas, i, context);
    const float t = -f32::log(sigmas[i]);
    const float h = -f32::log(sigmas[i + 1]) - t;
    at::Tensor mix = pair.uncond * -f32::exp(-h);
    if (uncond_before.defined() && sigmas[i + 1] != 0) {
      const float ratio = (t + f32::log(sigmas[i - 1])) / h;
      mix = mix - (pair.denoised - uncond_before) * (f32::expm1(-h) * (1 / (2 * ratio)));
    }
    x = pair.denoised + mix + x * f32::exp(-h);
    uncond_before = pair.uncond;
  }
  return x;
}

}  // namespace distorch::sampling
