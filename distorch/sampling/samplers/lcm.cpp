// Latent consistency models (arXiv:2310.04378): jump to the estimate, noise it again.
#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {

at::Tensor sample_lcm(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                      const SamplerContext& context) {
  auto noise = gaussian_noise(x, context.seed);
  for (int i = 0; i < step_count(sigmas); ++i) {
    x = estimate(model, x, sigmas, i, context);
    if (sigmas[i + 1] > 0) {
      x = model.model_sampling().noise_scaling(sigmas[i + 1], (*noise)(sigmas[i], sigmas[i + 1]),
                                               x);
    }
  }
  return x;
}

}  // namespace distorch::sampling
