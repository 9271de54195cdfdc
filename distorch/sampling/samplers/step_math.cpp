#include "distorch/sampling/samplers/step_math.h"

#include <cmath>

namespace distorch::sampling {

at::Tensor estimate(Denoiser& model, const at::Tensor& x, const Sigmas& sigmas, int i,
                    const SamplerContext& context) {
  at::Tensor denoised = model(x, sigmas[i]);
  context.report({i, step_count(sigmas), sigmas[i], x, denoised});
  return denoised;
}

GuidedPair estimate_pair(Denoiser& model, const at::Tensor& x, const Sigmas& sigmas, int i,
                         const SamplerContext& context) {
  GuidedPair pair = model.with_uncond(x, sigmas[i]);
  context.report({i, step_count(sigmas), sigmas[i], x, pair.denoised});
  return pair;
}

at::Tensor derivative(const at::Tensor& x, float sigma, const at::Tensor& denoised) {
  return (x - denoised) / sigma;
}

AncestralStep ancestral_step(float sigma_from, float sigma_to, float eta) {
  if (eta == 0) {
    return {sigma_to, 0.0f};
  }
  const float from = sigma_from * sigma_from;
  const float to = sigma_to * sigma_to;
  const float up = std::min(sigma_to, eta * f32::sqrt(to * (from - to) / from));
  return {f32::sqrt(to - up * up), up};
}

FlowAncestralStep flow_ancestral_step(float sigma_from, float sigma_to, float eta) {
  const float down = sigma_to * (1 + (sigma_to / sigma_from - 1) * eta);
  const float alpha_to = 1 - sigma_to;
  const float alpha_down = 1 - down;
  const float scaled = down * down * (alpha_to * alpha_to) / (alpha_down * alpha_down);
  return {down, alpha_to / alpha_down, f32::sqrt(sigma_to * sigma_to - scaled)};
}

float HalfLogSnr::of(float sigma) const { return flow_ ? -f32::logit(sigma) : -f32::log(sigma); }

float HalfLogSnr::sigma(float half_log_snr) const {
  return flow_ ? f32::sigmoid(-half_log_snr) : f32::exp(-half_log_snr);
}

float HalfLogSnr::alpha(float sigma) const { return sigma * f32::exp(of(sigma)); }

Sigmas offset_first_sigma(const Sigmas& sigmas, const ModelSampling& model) {
  constexpr double kPercent = 1e-4;
  Sigmas out = sigmas;
  if (model.is_flow() && out.size() > 1 && out[0] >= 1) {
    out[0] = static_cast<float>(model.percent_to_sigma(kPercent));
  }
  return out;
}

float lerp(float a, float b, float part) {
  return part < 0.5f ? a + part * (b - a) : b - (b - a) * (1 - part);
}

float between_in_log(float a, float b, float part) {
  return f32::exp(lerp(f32::log(a), f32::log(b), part));
}

}  // namespace distorch::sampling
