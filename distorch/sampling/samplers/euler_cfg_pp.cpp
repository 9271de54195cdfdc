// CFG++ (arXiv:2406.08070): the guided estimate is renoised along the direction of the negative's
// estimate alone.
#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

at::Tensor euler_cfg_pp(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                        const SamplerContext& context, float eta, float s_noise) {
  const HalfLogSnr snr(model.model_sampling());
  auto noise = gaussian_noise(x, context.seed);
  for (int i = 0; i < step_count(sigmas); ++i) {
    const GuidedPair pair = estimate_pair(model, x, sigmas, i, context);
    if (sigmas[i + 1] == 0) {
      x = pair.denoised;
      continue;
    }
    const float alpha_from = snr.alpha(sigmas[i]);
    const float alpha_to = snr.alpha(sigmas[i + 1]);
    const at::Tensor direction = derivative(x, sigmas[i], pair.uncond * alpha_from);
    const AncestralStep step =
        ancestral_step(sigmas[i] / alpha_from, sigmas[i + 1] / alpha_to, eta);
    x = pair.denoised * alpha_to + direction * (alpha_to * step.down);
    if (eta > 0 && s_noise > 0) {
      x = x + (*noise)(sigmas[i], sigmas[i + 1]) * alpha_to * s_noise * step.up;
    }
  }
  return x;
}

}  // namespace

at::Tensor sample_euler_cfg_pp(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                               const SamplerContext& context) {
  return euler_cfg_pp(model, std::move(x), sigmas, context, 0, 0);
}

at::Tensor sample_euler_cfg_pp_alternative(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                           const SamplerContext& context) {
  for (int i = 0; i < step_count(sigmas); ++i) {
    const GuidedPair pair = estimate_pair(model, x, sigmas, i, context);
    const at::Tensor shifted = x - pair.denoised + pair.uncond;
    x = x + derivative(shifted, sigmas[i], pair.denoised) * (sigmas[i + 1] - sigmas[i]);
  }
  return x;
}

at::Tensor sample_euler_ancestral_cfg_pp(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                         const SamplerContext& context) {
  return euler_cfg_pp(model, std::move(x), sigmas, context, eta_of(context), s_noise_of(context));
}

}  // namespace distorch::sampling
