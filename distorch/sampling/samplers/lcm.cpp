// Latent consistency models (arXiv:2310.04378): jump to the estimate, noise it again.
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {

at::Tensor sample_lcm(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                      const SamplerContext& context) {
  auto noise = gaussian_noise(x, context.seed);
  const int steps = step_count(sigmas);
  const double first = context.options.s_noise.value_or(1.0);
  const double last = context.options.lcm.s_noise_end.value_or(first);
  const double clip = context.options.lcm.clip;
  for (int i = 0; i < steps; ++i) {
    x = estimate(model, x, sigmas, i, context);
    if (sigmas[i + 1] <= 0) {
      continue;
    }
    at::Tensor fresh = (*noise)(sigmas[i], sigmas[i + 1]);
    if (clip > 0) {
      const at::Tensor most = clip * fresh.std();
      fresh = at::minimum(at::maximum(fresh, -most), most);
    }
    const double part = steps > 1 ? static_cast<double>(i) / (steps - 1) : 0.0;
    const double factor = first + (last - first) * part;
    if (factor != 1.0) {
      fresh = fresh * factor;
    }
    x = model.model_sampling().noise_scaling(sigmas[i + 1], fresh, x);
  }
  return x;
}

at::Tensor sample_lcm_upscale(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                              const SamplerContext& context) {
  const SamplerOptions::Upscale& options = context.options.upscale;
  if (options.resize == nullptr) {
    throw Error(ErrorKind::Internal, "sampler", "lcm_upscale was given nothing to resize with");
  }
  const int points = static_cast<int>(sigmas.size());
  const int sizes =
      options.steps ? std::min(*options.steps + 1, points + 1) : std::max(points / 2 + 1, 2);
  const std::int64_t width = x.size(-1), height = x.size(-2);
  // The run's own noise was the generator's first draw.
  const at::Generator generator = at::detail::createCPUGenerator(context.seed);
  at::randn(x.sizes(), generator, at::TensorOptions(at::kFloat));
  for (int i = 0; i < step_count(sigmas); ++i) {
    x = estimate(model, x, sigmas, i, context);
    if (i + 1 < sizes) {
      const double scale = 1.0 + (options.ratio - 1.0) * (i + 1) / (sizes - 1);
      const auto scaled = [&](std::int64_t side) {
        return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(side) * scale));
      };
      x = options.resize(x, scaled(width), scaled(height));
    }
    if (sigmas[i + 1] > 0) {
      const at::Tensor fresh = at::randn(x.sizes(), generator, at::TensorOptions(at::kFloat));
      x = x + fresh.to(x.options()) * sigmas[i + 1];
    }
  }
  return x;
}

}  // namespace distorch::sampling
