// Refined exponential solver (arXiv:2308.02157), second order from the step before; ancestral and
// CFG++ forms.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

float finite_or_zero(float value) { return std::isnan(value) ? 0.0f : value; }

at::Tensor res_multistep(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                         const SamplerContext& context, float eta, bool cfg_pp) {
  const float s_noise = s_noise_of(context);
  auto noise = gaussian_noise(x, context.seed);
  auto time = [](float sigma) { return -f32::log(sigma); };
  at::Tensor before;
  float down_before = 0;

  for (int i = 0; i < step_count(sigmas); ++i) {
    const GuidedPair pair = cfg_pp ? estimate_pair(model, x, sigmas, i, context)
                                   : GuidedPair{estimate(model, x, sigmas, i, context), {}};
    const at::Tensor& base = cfg_pp ? pair.uncond : pair.denoised;
    const AncestralStep step = ancestral_step(sigmas[i], sigmas[i + 1], eta);
    if (step.down == 0 || !before.defined()) {
      const at::Tensor slope = derivative(x, sigmas[i], base);
      x = cfg_pp ? pair.denoised + slope * step.down : x + slope * (step.down - sigmas[i]);
    } else {
      const float h = time(step.down) - time(sigmas[i]);
      const float node = (time(sigmas[i - 1]) - time(down_before)) / h;
      const float phi_1 = f32::expm1(-h) / -h;
      const float phi_2 = (phi_1 - 1.0f) / -h;
      const float newest = finite_or_zero(phi_1 - phi_2 / node);
      const float older = finite_or_zero(phi_2 / node);
      if (cfg_pp) {
        x = x + (pair.denoised - pair.uncond);
      }
      x = x * f32::exp(-h) + (base * newest + before * older) * h;
    }
    if (sigmas[i + 1] > 0) {
      x = x + (*noise)(sigmas[i], sigmas[i + 1]) * s_noise * step.up;
    }
    before = base;
    down_before = step.down;
  }
  return x;
}

}  // namespace

at::Tensor sample_res_multistep(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                const SamplerContext& context) {
  return res_multistep(model, std::move(x), sigmas, context, 0, false);
}

at::Tensor sample_res_multistep_cfg_pp(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                       const SamplerContext& context) {
  return res_multistep(model, std::move(x), sigmas, context, 0, true);
}

at::Tensor sample_res_multistep_ancestral(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                          const SamplerContext& context) {
  return res_multistep(model, std::move(x), sigmas, context, eta_of(context), false);
}

at::Tensor sample_res_multistep_ancestral_cfg_pp(Denoiser& model, at::Tensor x,
                                                 const Sigmas& sigmas,
                                                 const SamplerContext& context) {
  return res_multistep(model, std::move(x), sigmas, context, eta_of(context), true);
}

}  // namespace distorch::sampling
