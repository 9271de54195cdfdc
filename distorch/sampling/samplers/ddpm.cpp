// The original ancestral sampler of DDPM (arXiv:2006.11239), in sigmas.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {

at::Tensor sample_ddpm(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                       const SamplerContext& context) {
  auto noise = gaussian_noise(x, context.seed);
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const at::Tensor eps = (x - denoised) / sigmas[i];
    const float kept = 1 / (sigmas[i] * sigmas[i] + 1);
    const float kept_next = 1 / (sigmas[i + 1] * sigmas[i + 1] + 1);
    const float alpha = kept / kept_next;
    const at::Tensor scaled = x / f32::sqrt(1.0f + sigmas[i] * sigmas[i]);
    x = (scaled - eps * (1 - alpha) / f32::sqrt(1 - kept)) * f32::sqrt(1.0f / alpha);
    if (sigmas[i + 1] > 0) {
      const float spread = f32::sqrt((1 - alpha) * (1 - kept_next) / (1 - kept));
      x = x + (*noise)(sigmas[i], sigmas[i + 1]) * spread;
      x = x * f32::sqrt(1.0f + sigmas[i + 1] * sigmas[i + 1]);
    }
  }
  return x;
}

}  // namespace distorch::sampling
