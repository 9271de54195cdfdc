// Linear multistep: the integral of the polynomial through the last slopes.
#include <boost/math/quadrature/gauss_kronrod.hpp>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

// The integral over [t_i, t_i+1] of the Lagrange polynomial that is 1 at t_(i-j) and 0 at the other
// nodes. Two Gauss points would be exact; the reference evaluates the polynomial in float32 at the
// 21 points of Gauss and Kronrod, and on nearly equal nodes that shows.
double coefficient(int order, const Sigmas& t, int i, int j) {
  auto polynomial = [&](double tau) {
    float product = 1;
    for (int k = 0; k < order; ++k) {
      if (k != j) {
        product *= (static_cast<float>(tau) - t[i - k]) / (t[i - j] - t[i - k]);
      }
    }
    return static_cast<double>(product);
  };
  using Rule = boost::math::quadrature::gauss_kronrod<double, 21>;
  return Rule::integrate(polynomial, static_cast<double>(t[i]), static_cast<double>(t[i + 1]), 0);
}

}  // namespace

at::Tensor sample_lms(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                      const SamplerContext& context) {
  std::deque<at::Tensor> slopes;  // newest first
  for (int i = 0; i < step_count(sigmas); ++i) {
    const at::Tensor denoised = estimate(model, x, sigmas, i, context);
    slopes.push_front(derivative(x, sigmas[i], denoised));
    if (slopes.size() > static_cast<std::size_t>(context.options.lms_order)) {
      slopes.pop_back();
    }
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    const int order = static_cast<int>(slopes.size());
    at::Tensor change = slopes[0] * coefficient(order, sigmas, i, 0);
    for (int j = 1; j < order; ++j) {
      change = change + slopes[j] * coefficient(order, sigmas, i, j);
    }
    x = x + change;
  }
  return x;
}

}  // namespace distorch::sampling
