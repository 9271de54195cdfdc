#pragma once
#include <ATen/core/Tensor.h>

#include "distorch/sampling/noise.h"
#include "distorch/sampling/samplers.h"
#include "distorch/sampling/samplers/float_math.h"

// What several samplers share. Numbers are float where the reference's are float32 tensors.
namespace distorch::sampling {

inline int step_count(const Sigmas& sigmas) { return static_cast<int>(sigmas.size()) - 1; }

/// The model's estimate at step i, reported.
at::Tensor estimate(Denoiser& model, const at::Tensor& x, const Sigmas& sigmas, int i,
                    const SamplerContext& context);
/// The same with the negative's own estimate (CFG++).
GuidedPair estimate_pair(Denoiser& model, const at::Tensor& x, const Sigmas& sigmas, int i,
                         const SamplerContext& context);

/// dx/dsigma of the probability flow (Karras et al. 2022).
at::Tensor derivative(const at::Tensor& x, float sigma, const at::Tensor& denoised);

/// An ancestral step: go down to `down`, then add noise of level `up` to arrive at sigma_to.
struct AncestralStep {
  float down;
  float up;
};
AncestralStep ancestral_step(float sigma_from, float sigma_to, float eta);

/// The same for flow models: go down to `down`, then keep * x + renoise * noise.
struct FlowAncestralStep {
  float down;
  float keep;
  float renoise;
};
FlowAncestralStep flow_ancestral_step(float sigma_from, float sigma_to, float eta);

/// Half the logarithm of the signal to noise ratio, log(alpha / sigma), of a model's kind of noise.
class HalfLogSnr {
 public:
  explicit HalfLogSnr(const ModelSampling& model) : flow_(model.is_flow()) {}
  float of(float sigma) const;
  float sigma(float half_log_snr) const;
  /// alpha of a sigma, by way of the logarithm.
  float alpha(float sigma) const;

 private:
  bool flow_;
};

/// Flow models start at sigma 1, where that logarithm is infinite: the first level is moved down a
/// little.
Sigmas offset_first_sigma(const Sigmas& sigmas, const ModelSampling& model);

/// The point at `part` of the way from a to b in log sigma.
float between_in_log(float a, float b, float part);
/// a + part * (b - a), rounded as the reference rounds it.
float lerp(float a, float b, float part);

inline float eta_of(const SamplerContext& context) {
  return static_cast<float>(context.options.eta.value_or(1.0));
}
inline float s_noise_of(const SamplerContext& context) {
  return static_cast<float>(context.options.s_noise.value_or(1.0));
}

}  // namespace distorch::sampling
