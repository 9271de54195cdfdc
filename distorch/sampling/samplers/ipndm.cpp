// Improved pseudo numerical methods (arXiv:2204.13902): Adams-Bashforth on the slope, up to order
// 4, with fixed weights (ipndm) or weights for uneven steps (ipndm_v).
#include <array>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

constexpr int kOrder = 4;
using Weights = std::array<float, kOrder>;  // newest slope first
using WeightsOf = Weights (*)(const Sigmas& t, int i, int order);

Weights even_weights(const Sigmas&, int, int order) {
  switch (order) {
    case 1: return {1.0f};
    case 2: return {3.0f / 2, -1.0f / 2};
    case 3: return {23.0f / 12, -16.0f / 12, 5.0f / 12};
    default: return {55.0f / 24, -59.0f / 24, 37.0f / 24, -9.0f / 24};
  }
}

// Weights for uneven steps: h0 is the step to come, h1, h2, h3 the ones before it.
Weights uneven_weights(const Sigmas& t, int i, int order) {
  if (order == 1) {
    return {1.0f};
  }
  const float h0 = t[i + 1] - t[i];
  const float h1 = t[i] - t[i - 1];
  Weights w = {(2 + h0 / h1) / 2, -(h0 / h1) / 2};
  if (order == 2) {
    return w;
  }
  const float h2 = t[i - 1] - t[i - 2];
  const float third = (1 - h0 / (3 * (h0 + h1)) * (h0 * (h0 + h1)) / (h1 * (h1 + h2))) / 2;
  w[0] += third;
  w[1] -= (1 + h1 / h2) * third;
  w[2] = third * h1 / h2;
  if (order == 3) {
    return w;
  }
  const float h3 = t[i - 2] - t[i - 3];
  const float ratio = h1 * (h1 + h2) / (h2 * (h2 + h3));
  const float fourth =
      ((1 - h0 / (3 * (h0 + h1))) / 2 + (1 - h0 / (2 * (h0 + h1))) * h0 / (6 * (h0 + h1 + h2))) *
      (h0 * (h0 + h1) * (h0 + h1 + h2)) / (h1 * (h1 + h2) * (h1 + h2 + h3));
  w[0] += fourth;
  w[1] -= (1 + h1 / h2 + ratio) * fourth;
  w[2] += (h1 / h2 + ratio * (1 + h2 / h3)) * fourth;
  w[3] = -fourth * ratio * h1 / h2;
  return w;
}

at::Tensor multistep(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                     const SamplerContext& context, WeightsOf weights_of) {
  std::deque<at::Tensor> slopes;  // newest first
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    slopes.push_front((x - denoised) / sigmas[i]);
    if (slopes.size() > kOrder) {
      slopes.pop_back();
    }
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    const int order = static_cast<int>(slopes.size());
    const Weights weights = weights_of(sigmas, i, order);
    at::Tensor slope = slopes[0] * weights[0];
    for (int j = 1; j < order; ++j) {
      slope = slope + slopes[j] * weights[j];
    }
    x = x + slope * (sigmas[i + 1] - sigmas[i]);
  }
  return x;
}

}  // namespace

at::Tensor sample_ipndm(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                        const SamplerContext& context) {
  return multistep(model, std::move(x), sigmas, context, even_weights);
}

at::Tensor sample_ipndm_v(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                          const SamplerContext& context) {
  return multistep(model, std::move(x), sigmas, context, uneven_weights);
}

}  // namespace distorch::sampling
