// SEEDS (arXiv:2305.14267): exponential solvers for the SDE with two and three evaluations a step;
// the noise of the inner points is carried on to the end of the step.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

float phi_2(float h) { return (f32::expm1(h) - h) / h; }  // h * phi_2(h) of exponential integrators

// The noise collected since the start of a step, at unit scale of the current sigma.
class StepNoise {
 public:
  StepNoise(NoiseSource& source, float length) : source_(source), length_(length) {}

  /// Moves from part `from` to part `to` of the step (0..1) and the sigmas that belong to them.
  const at::Tensor& advance(float from, float to, float sigma_from, float sigma_to) {
    const float decay = (from - to) * length_;
    at::Tensor fresh = source_(sigma_from, sigma_to) * f32::sqrt(-f32::expm1(2 * decay));
    collected_ = collected_.defined() ? collected_ * f32::exp(decay) + fresh : fresh;
    return collected_;
  }

 private:
  NoiseSource& source_;
  float length_;  // h * eta
  at::Tensor collected_;
};

// One step of either solver: what its formulas share.
struct Frame {
  HalfLogSnr snr;
  float eta, s_noise;
  float sigma_from, sigma_to;
  float from, h;
  float part;  // two stages: where the inner evaluation lies
  bool second_phi;

  bool noisy() const { return eta > 0 && s_noise > 0; }
  float half_log_snr(float part) const { return lerp(from, from + h, part); }
  float sigma(float part) const { return part == 1 ? sigma_to : snr.sigma(half_log_snr(part)); }
  float alpha(float part) const {
    return part == 1 ? sigma_to * f32::exp(snr.of(sigma_to))
                     : sigma(part) * f32::exp(half_log_snr(part));
  }
  /// Weight of x, and the exponent of the estimates' weights, at a part of the step.
  float decay(float part) const { return sigma(part) / sigma_from * f32::exp(-part * h * eta); }
  float exponent(float part) const { return -part * (h * (eta + 1)); }
};

using Stepper = at::Tensor (*)(Denoiser& model, const at::Tensor& x, const at::Tensor& denoised,
                               const Frame& frame, StepNoise& noise);

at::Tensor two_stages(Denoiser& model, const at::Tensor& x, const at::Tensor& denoised,
                      const Frame& f, StepNoise& noise) {
  const float part = f.part;
  const float sigma_1 = f.sigma(part);
  at::Tensor inner = x * f.decay(part) - denoised * (f.alpha(part) * f32::expm1(f.exponent(part)));
  if (f.noisy()) {
    inner = inner + noise.advance(0, part, f.sigma_from, sigma_1) * sigma_1 * f.s_noise;
  }
  const at::Tensor middle = model(inner, sigma_1);
  const float whole = f32::expm1(f.exponent(1));
  at::Tensor out = x * f.decay(1);
  if (f.second_phi) {
    const float share = phi_2(f.exponent(1)) / part;
    out = out - (denoised * (whole - share) + middle * share) * f.alpha(1);
  } else {
    const float share = 1 / (2 * part);
    out = out - (share == 1 ? middle : at::lerp(denoised, middle, share)) * (f.alpha(1) * whole);
  }
  if (f.noisy()) {
    out = out + noise.advance(part, 1, sigma_1, f.sigma_to) * f.sigma_to * f.s_noise;
  }
  return out;
}

at::Tensor three_stages(Denoiser& model, const at::Tensor& x, const at::Tensor& denoised,
                        const Frame& f, StepNoise& noise) {
  constexpr float kPart1 = 1.0f / 3;
  constexpr float kPart2 = 2.0f / 3;
  const float sigma_1 = f.sigma(kPart1);
  const float sigma_2 = f.sigma(kPart2);
  at::Tensor inner =
      x * f.decay(kPart1) - denoised * (f.alpha(kPart1) * f32::expm1(f.exponent(kPart1)));
  if (f.noisy()) {
    inner = inner + noise.advance(0, kPart1, f.sigma_from, sigma_1) * sigma_1 * f.s_noise;
  }
  const at::Tensor denoised_1 = model(inner, sigma_1);

  const float share_1 = kPart2 / kPart1 * phi_2(f.exponent(kPart2));
  const float share_0 = f32::expm1(f.exponent(kPart2)) - share_1;
  inner = x * f.decay(kPart2) - (denoised * share_0 + denoised_1 * share_1) * f.alpha(kPart2);
  if (f.noisy()) {
    inner = inner + noise.advance(kPart1, kPart2, sigma_1, sigma_2) * sigma_2 * f.s_noise;
  }
  const at::Tensor denoised_2 = model(inner, sigma_2);

  const float last_2 = phi_2(f.exponent(1)) / kPart2;
  const float last_0 = f32::expm1(f.exponent(1)) - last_2;
  at::Tensor out = x * f.decay(1) - (denoised * last_0 + denoised_2 * last_2) * f.alpha(1);
  if (f.noisy()) {
    out = out + noise.advance(kPart2, 1, sigma_2, f.sigma_to) * f.sigma_to * f.s_noise;
  }
  return out;
}

at::Tensor seeds(Denoiser& model, at::Tensor x, const Sigmas& given, const SamplerContext& context,
                 Stepper stepper) {
  auto noise = gaussian_noise(x, context.seed);
  const HalfLogSnr snr(model.model_sampling());
  const Sigmas sigmas = offset_first_sigma(given, model.model_sampling());
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    const float from = snr.of(sigmas[i]);
    const Frame frame = {snr,
                         eta_of(context),
                         s_noise_of(context),
                         sigmas[i],
                         sigmas[i + 1],
                         from,
                         snr.of(sigmas[i + 1]) - from,
                         static_cast<float>(context.options.inner_part),
                         context.options.second_phi};
    StepNoise step_noise(*noise, frame.h * frame.eta);
    x = stepper(model, x, denoised, frame, step_noise);
  }
  return x;
}

}  // namespace

at::Tensor sample_seeds_2(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                          const SamplerContext& context) {
  return seeds(model, std::move(x), sigmas, context, two_stages);
}

/// Heun's method of the data's estimate in exponential form: two evaluations at the ends of a step.
at::Tensor sample_exp_heun_2_x0_sde(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                    const SamplerContext& context) {
  auto heun = context;
  heun.options.inner_part = 1;
  heun.options.second_phi = true;
  return seeds(model, std::move(x), sigmas, heun, two_stages);
}

at::Tensor sample_exp_heun_2_x0(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                const SamplerContext& context) {
  auto quiet = context;
  quiet.options.eta = 0;
  quiet.options.s_noise = 0;
  return sample_exp_heun_2_x0_sde(model, std::move(x), sigmas, quiet);
}

at::Tensor sample_seeds_3(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                          const SamplerContext& context) {
  return seeds(model, std::move(x), sigmas, context, three_stages);
}

}  // namespace distorch::sampling
