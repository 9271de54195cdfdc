// UniPC (arXiv:2302.04867): predictor and corrector of one family, orders 1 to 3, predicting x0, on
// the variance-preserving x / sqrt(1 + sigma^2). The schedule's numbers are float32 as in the
// reference, which matters for the last, tiny sigma.
#include <cmath>

#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

constexpr float kLastSigma = 0.001f;  // stands for 0
enum class Variant { Bh1, Bh2 };

std::vector<float> numbers(const at::Tensor& tensor) {
  const float* data = tensor.const_data_ptr<float>();
  return std::vector<float>(data, data + tensor.numel());
}

// alpha, sigma and log(alpha / sigma) of the variance-preserving process at every step.
struct Levels {
  std::vector<float> alpha, deviation, lambda;

  explicit Levels(const Sigmas& sigmas) {
    const at::Tensor sigma = at::tensor(sigmas, at::kFloat);
    const at::Tensor log_alpha = 0.5 * at::log(1 / (sigma * sigma + 1));
    const at::Tensor variance = 1.0 - at::exp(2.0 * log_alpha);
    alpha = numbers(at::exp(log_alpha));
    deviation = numbers(at::sqrt(variance));
    lambda = numbers(log_alpha - 0.5 * at::log(variance));
  }
};

struct Estimate {
  int level;
  at::Tensor x0;
};

class UniPc {
 public:
  UniPc(Denoiser& model, const Sigmas& sigmas, Variant variant)
      : model_(model), sigmas_(sigmas), levels_(sigmas), variant_(variant) {}

  at::Tensor evaluate(const at::Tensor& x, int level) {
    const float sigma = sigmas_[level];
    return model_(x * f32::sqrt(sigma * sigma + 1.0f), sigma);
  }

  float alpha(int level) const { return levels_.alpha[level]; }

  /// x at `level` from the newest `order` estimates (newest last). With `correct` the model is
  /// asked at the prediction and the step made again with that estimate, which is returned too.
  std::pair<at::Tensor, at::Tensor> step(const at::Tensor& x, const std::deque<Estimate>& history,
                                         int level, int order, bool correct) {
    const Coefficients c = coefficients(history, level, order);
    const Estimate& newest = history.back();
    std::vector<at::Tensor> differences;
    for (int k = 1; k < order; ++k) {
      differences.push_back((history[history.size() - 1 - k].x0 - newest.x0) / c.nodes[k - 1]);
    }
    const at::Tensor base = x * (levels_.deviation[level] / levels_.deviation[newest.level]) -
                            newest.x0 * (alpha(level) * c.phi_1);
    at::Tensor predicted = base;
    for (int k = 0; k + 1 < order; ++k) {
      predicted = predicted - differences[k] * (alpha(level) * c.scale * c.predictor[k]);
    }
    if (!correct) {
      return {predicted, {}};
    }
    const at::Tensor x0 = evaluate(predicted, level);
    at::Tensor residual = (x0 - newest.x0) * c.corrector[order - 1];
    for (int k = 0; k + 1 < order; ++k) {
      residual = residual + differences[k] * c.corrector[k];
    }
    return {base - residual * (alpha(level) * c.scale), x0};
  }

 private:
  struct Coefficients {
    std::vector<float> nodes;      // earlier estimates in units of the step, then 1
    std::vector<float> predictor;  // order - 1 weights
    std::vector<float> corrector;  // order weights
    float phi_1;                   // e^-h - 1
    float scale;                   // B(h)
  };

  Coefficients coefficients(const std::deque<Estimate>& history, int level, int order) const {
    Coefficients c;
    const float start = levels_.lambda[history.back().level];
    const float h = levels_.lambda[level] - start;
    for (int k = 1; k < order; ++k) {
      c.nodes.push_back((levels_.lambda[history[history.size() - 1 - k].level] - start) / h);
    }
    c.nodes.push_back(1.0f);
    c.phi_1 = f32::expm1(-h);
    c.scale = variant_ == Variant::Bh1 ? -h : c.phi_1;

    const at::Tensor nodes = at::tensor(c.nodes, at::kFloat);
    std::vector<at::Tensor> rows;
    std::vector<float> right;
    float phi = c.phi_1 / -h - 1;
    float factorial = 1;
    for (int k = 1; k <= order; ++k) {
      rows.push_back(at::pow(nodes, k - 1));
      right.push_back(phi * factorial / c.scale);
      factorial *= static_cast<float>(k + 1);
      phi = phi / -h - 1 / factorial;
    }
    const at::Tensor matrix = at::stack(rows);
    const at::Tensor target = at::tensor(right, at::kFloat);
    if (order == 2) {
      c.predictor = {0.5f};
    } else if (order > 2) {
      c.predictor = numbers(at::linalg_solve(matrix.narrow(0, 0, order - 1).narrow(1, 0, order - 1),
                                             target.narrow(0, 0, order - 1)));
    }
    c.corrector = order == 1 ? std::vector<float>{0.5f} : numbers(at::linalg_solve(matrix, target));
    return c;
  }

  Denoiser& model_;
  const Sigmas& sigmas_;
  Levels levels_;
  Variant variant_;
};

at::Tensor uni_pc(Denoiser& model, at::Tensor x, Sigmas sigmas, const SamplerContext& context,
                  Variant variant) {
  const bool ends_clean = sigmas.back() == 0;
  if (ends_clean) {
    sigmas.back() = kLastSigma;
  }
  UniPc solver(model, sigmas, variant);
  const int steps = step_count(sigmas);
  const int order = std::min(3, steps - 1);
  x = x / f32::sqrt(1.0f + sigmas[0] * sigmas[0]);
  std::deque<Estimate> history;
  for (int i = 0; i < steps; ++i) {
    if (i == 0) {
      history.push_back({0, solver.evaluate(x, 0)});
    } else {
      auto [moved, x0] = solver.step(x, history, i, std::min({order, i, steps + 1 - i}), true);
      x = moved;
      history.push_back({i, x0});
      if (history.size() > static_cast<std::size_t>(order)) {
        history.pop_front();
      }
      if (i == steps - 1) {
        x = solver.step(x, history, steps, std::min(order, 1), false).first;
      }
    }
    context.report({i, steps, sigmas[i], x, history.back().x0});
  }
  x = x / solver.alpha(steps);
  // The reference leaves its tiny last sigma behind for the model's own final scaling.
  return ends_clean ? model.model_sampling().inverse_noise_scaling(kLastSigma, x) : x;
}

}  // namespace

at::Tensor sample_uni_pc(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                         const SamplerContext& context) {
  return uni_pc(model, std::move(x), sigmas, context, Variant::Bh1);
}

at::Tensor sample_uni_pc_bh2(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                             const SamplerContext& context) {
  return uni_pc(model, std::move(x), sigmas, context, Variant::Bh2);
}

}  // namespace distorch::sampling
