// Extended reverse-time SDE, third order (arXiv:2309.06169).
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

constexpr int kPoints = 200;  // of the numerical integrals

// How much of the noise is replaced at a noise-to-signal ratio.
class NoiseScale {
 public:
  explicit NoiseScale(const SamplerOptions::ErSde& options) : power_(options.power) {}
  at::Tensor operator()(const at::Tensor& ratio) const {
    return power_ ? ratio.pow(*power_) : ratio * (ratio.pow(0.3).exp() + 10.0);
  }
  float operator()(float ratio) const {
    return (*this)(at::scalar_tensor(ratio, at::kFloat)).item().toFloat();
  }

 private:
  std::optional<double> power_;
};

// The integrals of 1 / scale and (ratio - from) / scale over [to, from].
struct Integrals {
  float plain;
  float linear;
};
Integrals integrate(const NoiseScale& noise_scale, float from, float to) {
  const float width = -(to - from) / kPoints;
  const at::Tensor at = at::arange(kPoints, at::kFloat) * width + to;
  const at::Tensor scale = noise_scale(at);
  return {at::sum(1 / scale).item().toFloat() * width,
          at::sum((at - from) / scale).item().toFloat() * width};
}

}  // namespace

at::Tensor sample_er_sde(Denoiser& model, at::Tensor x, const Sigmas& given,
                         const SamplerContext& context) {
  const float s_noise = s_noise_of(context);
  const NoiseScale noise_scale(context.options.er_sde);
  const int stages = context.options.er_sde.stages;
  auto noise = gaussian_noise(x, context.seed);
  const HalfLogSnr snr(model.model_sampling());
  const Sigmas sigmas = offset_first_sigma(given, model.model_sampling());
  std::vector<float> ratio;  // noise to signal, sigma / alpha
  for (float sigma : sigmas) {
    ratio.push_back(f32::exp(-snr.of(sigma)));
  }
  at::Tensor before, slope_before;

  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    const float from = ratio[i];
    const float to = ratio[i + 1];
    const float alpha_from = sigmas[i] / from;
    const float alpha = sigmas[i + 1] / to;
    const float r = noise_scale(to) / noise_scale(from);
    x = x * (alpha / alpha_from * r) + denoised * (alpha * (1 - r));
    if (i >= 1 && stages >= 2) {
      const float dt = to - from;
      const Integrals integrals = integrate(noise_scale, from, to);
      const at::Tensor slope = (denoised - before) / (from - ratio[i - 1]);
      x = x + slope * (alpha * (dt + integrals.plain * noise_scale(to)));
      if (i >= 2 && stages >= 3) {
        const at::Tensor bend = (slope - slope_before) / ((from - ratio[i - 2]) / 2);
        x = x + bend * (alpha * (dt * dt / 2 + integrals.linear * noise_scale(to)));
      }
      slope_before = slope;
    }
    if (s_noise > 0) {
      const float spread = f32::sqrt(to * to - from * from * (r * r));
      x = x + (*noise)(sigmas[i], sigmas[i + 1]) * alpha * s_noise *
                  (std::isnan(spread) ? 0.0f : spread);
    }
    before = denoised;
  }
  return x;
}

}  // namespace distorch::sampling
