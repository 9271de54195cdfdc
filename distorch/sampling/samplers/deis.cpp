// DEIS (arXiv:2204.13902, "tAB" variant, order 3): the integral of the polynomial through the last
// slopes, weighted with how the noise level moves over VP time. Computed in float32 like the
// reference: its cancellations near t = 0 are part of the result.
#include <array>
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

constexpr int kOrder = 3;
constexpr int kPoints = 10000;  // of the numerical integral

// The VP process whose sigma runs from 0.002 to 80 over t in [0.001, 1]: beta(t) = min + t * slope.
struct VpTime {
  float beta_min;
  float beta_slope;

  VpTime() {
    constexpr float kFirst = 1e-3f;
    const float low = f32::log(0.002f * 0.002f + 1.0f);
    const float high = f32::log(80.0f * 80.0f + 1.0f);
    beta_slope = 2 * (low / kFirst - high) / (kFirst - 1.0f);
    beta_min = high - 0.5f * beta_slope;
  }

  at::Tensor of(const at::Tensor& sigma) const {
    return ((beta_min * beta_min + 2 * beta_slope * (sigma * sigma + 1).log()).sqrt() - beta_min) /
           beta_slope;
  }

  // How fast the noise grows per unit of t: -d(log alpha)/dt / 2 / sqrt(alpha (1 - alpha)).
  at::Tensor growth(const at::Tensor& t) const {
    const float top = beta_slope + beta_min;  // beta at t = 1
    const float slope = top - beta_min;
    const at::Tensor alpha = at::exp(-0.5 * (t * t) * slope - t * beta_min);
    const at::Tensor log_slope = -t * slope - beta_min;
    return -0.5 * log_slope / at::sqrt(alpha * (1 - alpha));
  }
};

// Weights of the newest `order` slopes for the step from t[i] to t[i+1].
std::array<float, kOrder> weights(const VpTime& time, const at::Tensor& t, int i, int order) {
  const float* at = t.const_data_ptr<float>();
  const at::Tensor taus = at::linspace(at[i], at[i + 1], kPoints, at::kFloat);
  const float spacing = (at[i + 1] - at[i]) / kPoints;
  const at::Tensor growth = time.growth(taus);
  std::array<float, kOrder> out{};
  for (int j = 0; j < order; ++j) {
    at::Tensor polynomial = at::ones_like(taus);
    for (int k = 0; k < order; ++k) {
      if (k != j) {
        polynomial = polynomial * ((taus - at[i - k]) / (at[i - j] - at[i - k]));
      }
    }
    out[j] = at::sum(growth * polynomial).item().toFloat() * spacing;
  }
  return out;
}

}  // namespace

at::Tensor sample_deis(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                       const SamplerContext& context) {
  const VpTime time;
  const at::Tensor t = time.of(at::tensor(sigmas, at::kFloat));
  std::deque<at::Tensor> slopes;  // newest first
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    slopes.push_front((x - denoised) / sigmas[i]);
    if (slopes.size() > kOrder) {
      slopes.pop_back();
    }
    const int order = sigmas[i + 1] <= 0 ? 1 : static_cast<int>(slopes.size());
    if (order == 1) {
      x = x + slopes[0] * (sigmas[i + 1] - sigmas[i]);
      continue;
    }
    const std::array<float, kOrder> weight = weights(time, t, i, order);
    for (int j = 0; j < order; ++j) {
      x = x + slopes[j] * weight[j];
    }
  }
  return x;
}

}  // namespace distorch::sampling
