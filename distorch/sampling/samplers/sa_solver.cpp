// SA-Solver (arXiv:2309.05019): stochastic Adams predictor and corrector in half log SNR,
// stochastic in a range of noise levels. Coefficients are float32 like the reference's.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

// (1 + tau^2) * integral of exp((1 + tau^2) x) x^p over [from, to], with exp((1 + tau^2) to) taken
// out, for p = 0 .. order-1. By parts, each power gives one boundary term and a multiple of the
// power below it.
at::Tensor power_integrals(float from, float to, int order, float tau) {
  const float growth = 1 + tau * tau;
  const float at_from = f32::exp(-growth * (to - from));
  std::vector<float> out;
  float below = 0;
  for (int p = 0; p < order; ++p) {
    const float boundary =
        std::pow(to, static_cast<float>(p)) - std::pow(from, static_cast<float>(p)) * at_from;
    below = boundary - static_cast<float>(p) / growth * below;
    out.push_back(below);
  }
  return at::tensor(out, at::kFloat);
}

// Weights of the estimates at `nodes` (oldest first) for the step from `from` to `to`.
at::Tensor weights(float sigma_to, const std::vector<float>& nodes, float from, float to,
                   float tau) {
  const int order = static_cast<int>(nodes.size());
  const at::Tensor points = at::tensor(nodes, at::kFloat);
  std::vector<at::Tensor> powers = {at::ones_like(points)};
  while (powers.size() < nodes.size()) {
    powers.push_back(powers.back() * points);
  }
  const at::Tensor rows = at::stack(powers);
  const at::Tensor solved = at::linalg_solve(rows, power_integrals(from, to, order, tau));
  return solved * (sigma_to * f32::exp(to));
}

enum class Part { Predictor, Corrector };

// Weights of two estimates by the paper's simpler formulas (its appendix D).
at::Tensor simple_weights(Part part, float sigma_to, const std::vector<float>& nodes, float from,
                          float to, float tau) {
  const float growth = 1 + tau * tau;
  const float h = to - from;
  const float alpha = sigma_to * f32::exp(to);
  const float whole = alpha * -f32::expm1(-h * growth);
  if (part == Part::Corrector) {
    const float newest = alpha * (0.5f * growth * h);
    return at::tensor({whole - newest, newest}, at::kFloat);
  }
  const float oldest = alpha * (0.5f * growth * (h * h)) / (nodes[nodes.size() - 2] - from);
  return at::tensor({oldest, whole - oldest}, at::kFloat);
}

// Sum of the newest estimates, oldest of them first, with those weights.
at::Tensor combine(const std::deque<at::Tensor>& estimates, const at::Tensor& weights) {
  const auto count = static_cast<std::size_t>(weights.numel());
  const float* weight = weights.const_data_ptr<float>();
  const std::size_t first = estimates.size() - count;
  at::Tensor sum = estimates[first] * weight[0];
  for (std::size_t k = 1; k < count; ++k) {
    sum = sum + estimates[first + k] * weight[k];
  }
  return sum;
}

struct Orders {
  int predictor;
  int corrector;
};

// Lower at the start, for want of history, and at the end, for stability.
Orders orders_at(const SamplerOptions::SaSolver& options, const Sigmas& sigmas, int i, int history,
                 bool evaluate_twice) {
  Orders orders = {std::min(options.predictor_order, history),
                   std::min(options.corrector_order, history)};
  if (i == 0 || (sigmas[i + 1] == 0 && !evaluate_twice)) {
    orders.corrector = 0;
  }
  if (sigmas.back() == 0) {
    const int left = step_count(sigmas) - i;
    orders.predictor = std::min(orders.predictor, left - 1);
    orders.corrector = std::min(orders.corrector, left);
  }
  return orders;
}

at::Tensor sa_solver(Denoiser& model, at::Tensor x, const Sigmas& given,
                     const SamplerContext& context, bool evaluate_twice) {
  if (given.size() <= 1) {
    return x;
  }
  const float eta = eta_of(context);
  const float s_noise = s_noise_of(context);
  auto source = gaussian_noise(x, context.seed);
  const ModelSampling& sampling = model.model_sampling();
  const Sigmas sigmas = offset_first_sigma(given, sampling);
  const HalfLogSnr snr(sampling);
  std::vector<float> lambda;
  for (float sigma : sigmas) {
    lambda.push_back(snr.of(sigma));
  }
  const SamplerOptions::SaSolver& options = context.options.sa_solver;
  const double noisy_from = options.noisy_from.value_or(sampling.percent_to_sigma(0.2));
  const double noisy_to = options.noisy_to.value_or(sampling.percent_to_sigma(0.8));
  const auto most =
      static_cast<std::size_t>(std::max(options.predictor_order, options.corrector_order));

  at::Tensor predicted = x;
  at::Tensor noise;
  std::deque<at::Tensor> estimates;  // newest last
  float tau = 0;
  float h = 0;
  auto nodes = [&](int i, int order) {
    return std::vector<float>(lambda.begin() + (i - order + 1), lambda.begin() + i + 1);
  };
  auto weights_of = [&](Part part, int level, const std::vector<float>& points, float from) {
    return options.simple_order_2 && points.size() == 2
               ? simple_weights(part, sigmas[level], points, from, lambda[level], tau)
               : weights(sigmas[level], points, from, lambda[level], tau);
  };
  for (int i = 0; i < step_count(sigmas); ++i) {
    at::Tensor denoised = estimate(model, predicted, sigmas, i, context);
    estimates.push_back(denoised);
    if (estimates.size() > most) {
      estimates.pop_front();
    }
    const Orders order =
        orders_at(options, sigmas, i, static_cast<int>(estimates.size()), evaluate_twice);
    if (order.corrector == 0) {
      x = predicted;
    } else {
      const at::Tensor weight =
          weights_of(Part::Corrector, i, nodes(i, order.corrector), lambda[i - 1]);
      x = x * (sigmas[i] / sigmas[i - 1] * f32::exp(-(tau * tau) * h)) + combine(estimates, weight);
      if (tau > 0 && s_noise > 0) {
        x = x + noise;
      }
      if (evaluate_twice) {
        denoised = model(x, sigmas[i]);
        estimates.back() = denoised;
      }
    }
    if (sigmas[i + 1] == 0) {
      x = denoised;
      continue;
    }
    tau = eta > 0 && noisy_from >= sigmas[i + 1] && sigmas[i + 1] >= noisy_to ? eta : 0;
    h = lambda[i + 1] - lambda[i];
    const at::Tensor weight =
        weights_of(Part::Predictor, i + 1, nodes(i, order.predictor), lambda[i]);
    predicted =
        x * (sigmas[i + 1] / sigmas[i] * f32::exp(-(tau * tau) * h)) + combine(estimates, weight);
    if (tau > 0 && s_noise > 0) {
      const float spread = f32::sqrt(-f32::expm1(-2 * (tau * tau) * h));
      noise = (*source)(sigmas[i], sigmas[i + 1]) * sigmas[i + 1] * spread * s_noise;
      predicted = predicted + noise;
    }
  }
  return x;
}

}  // namespace

at::Tensor sample_sa_solver(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                            const SamplerContext& context) {
  return sa_solver(model, std::move(x), sigmas, context, context.options.sa_solver.evaluate_twice);
}

at::Tensor sample_sa_solver_pece(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                                 const SamplerContext& context) {
  return sa_solver(model, std::move(x), sigmas, context, true);
}

}  // namespace distorch::sampling
