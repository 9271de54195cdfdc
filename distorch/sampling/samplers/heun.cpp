// Heun's method (Karras et al. 2022, algorithm 2 without churn), and Heun++ with weights that
// follow sigma.
#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {

at::Tensor sample_heun(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                       const SamplerContext& context) {
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const at::Tensor slope = derivative(x, sigmas[i], denoised);
    const float dt = sigmas[i + 1] - sigmas[i];
    const at::Tensor end = x + slope * dt;
    if (sigmas[i + 1] == 0) {
      x = end;
      continue;
    }
    const at::Tensor end_slope = derivative(end, sigmas[i + 1], model(end, sigmas[i + 1]));
    x = x + (slope + end_slope) / 2 * dt;
  }
  return x;
}

at::Tensor sample_heunpp2(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                          const SamplerContext& context) {
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    const at::Tensor slope = derivative(x, sigmas[i], denoised);
    const float dt = sigmas[i + 1] - sigmas[i];
    const at::Tensor second = x + slope * dt;
    if (sigmas[i + 1] == sigmas.back()) {
      x = second;
      continue;
    }
    const at::Tensor second_slope = derivative(second, sigmas[i + 1], model(second, sigmas[i + 1]));
    if (sigmas[i + 2] == sigmas.back()) {
      const float weight = sigmas[i + 1] / (2 * sigmas[0]);
      x = x + (slope * (1 - weight) + second_slope * weight) * dt;
      continue;
    }
    const at::Tensor third = second + second_slope * (sigmas[i + 2] - sigmas[i + 1]);
    const at::Tensor third_slope = derivative(third, sigmas[i + 2], model(third, sigmas[i + 2]));
    const float weight_2 = sigmas[i + 1] / (3 * sigmas[0]);
    const float weight_3 = sigmas[i + 2] / (3 * sigmas[0]);
    x = x +
        (slope * (1 - weight_2 - weight_3) + second_slope * weight_2 + third_slope * weight_3) * dt;
  }
  return x;
}

}  // namespace distorch::sampling
