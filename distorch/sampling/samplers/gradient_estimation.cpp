// Gradient estimation (arXiv:2306.04848): Euler with a push along the change of the slope.
#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

at::Tensor gradient_estimation(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                               const SamplerContext& context, bool cfg_pp) {
  constexpr float kGamma = 2.0f;
  at::Tensor slope_before;
  for (int i = 0; i < step_count(sigmas); ++i) {
    const GuidedPair pair = cfg_pp ? estimate_pair(model, x, sigmas, i, context)
                                   : GuidedPair{estimate(model, x, sigmas, i, context), {}};
    const at::Tensor slope = derivative(x, sigmas[i], cfg_pp ? pair.uncond : pair.denoised);
    const float dt = sigmas[i + 1] - sigmas[i];
    if (sigmas[i + 1] == 0) {
      x = pair.denoised;
    } else {
      x = cfg_pp ? pair.denoised + slope * sigmas[i + 1] : x + slope * dt;
      if (slope_before.defined()) {
        x = x + (slope - slope_before) * (kGamma - 1) * dt;
      }
    }
    slope_before = slope;
  }
  return x;
}

}  // namespace

at::Tensor sample_gradient_estimation(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                      const SamplerContext& context) {
  return gradient_estimation(model, std::move(x), sigmas, context, false);
}

at::Tensor sample_gradient_estimation_cfg_pp(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                             const SamplerContext& context) {
  return gradient_estimation(model, std::move(x), sigmas, context, true);
}

}  // namespace distorch::sampling
