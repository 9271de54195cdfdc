#include "distorch/sampling/sa_solver.h"

#include <ATen/ops/randn.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace distorch::sampling {
namespace {

using at::Tensor;

/// A noise level in the terms of the solver: x = (1 - sigma) · x0 + sigma · noise.
double lambda_of(double sigma) { return std::log(1 - sigma) - std::log(sigma); }

/// The integral of exp(c · x) · x^power from `from` to `to`, power 0 or 1.
double exponential(int power, double c, double from, double to) {
  const double end = std::exp(c * to), decay = std::exp(-c * (to - from));
  if (power == 0) return end * (1 - decay) / c;
  return end * ((c * to - 1) - (c * from - 1) * decay) / (c * c);
}

class SaSolver final : public WanSolver {
 public:
  explicit SaSolver(const WanSchedule& schedule) : schedule_(schedule) {}

  Tensor step(const Tensor& given, const Tensor& velocity, std::size_t i,
              at::Generator& generator) override {
    const auto estimate = given - velocity * sigma(i);
    const auto x = i == 0 ? given : corrected(estimate, i);
    before_ = last_;
    last_ = estimate;
    last_sample_ = x;
    last_noise_ = at::randn(x.sizes(), generator, x.options().device(at::kCPU)).to(x.device());
    // Fewer where there are no more steps behind or before.
    const auto left = schedule_.timesteps.size() - i;
    const std::size_t order = std::min<std::size_t>({2, left, i + 1});
    corrector_order_ = std::min<std::size_t>({2, left + 1, i + 2});
    return predicted(x, i, order);
  }

 private:
  double sigma(std::size_t i) const { return schedule_.sigmas.at(i); }

  /// 1 where noise is renewed, 0 where the path is an ODE's.
  double tau(std::size_t i) const {
    constexpr float first = 200, last = 800;
    const auto t = schedule_.timesteps.at(i);
    return t >= first && t <= last ? 1 : 0;
  }

  /// How much each estimate counts from one level to another, the newest first: of one at `first`,
  /// or of two, the other at `second`.
  static std::vector<double> shares(std::size_t order, double from, double to, double c,
                                    double first, double second) {
    const double whole = exponential(0, c, from, to);
    if (order == 1) return {whole};
    const double slope = exponential(1, c, from, to);
    return {(slope - second * whole) / (first - second),
            (slope - first * whole) / (second - first)};
  }

  /// A step from level `i` to the next by these estimates.
  Tensor moved(const Tensor& x, std::size_t i, const std::vector<Tensor>& estimates,
               std::vector<double> by, double c) const {
    const double from = lambda_of(sigma(i)), to = lambda_of(sigma(i + 1)), h = to - from;
    const double t2 = c - 1, scale = c * sigma(i + 1) * std::exp(-t2 * to);
    auto next = x * (std::exp(-t2 * h) * sigma(i + 1) / sigma(i));
    for (std::size_t k = 0; k < by.size(); ++k) next = next + estimates[k] * (scale * by[k]);
    return next + last_noise_ * (sigma(i + 1) * std::sqrt(1 - std::exp(-2 * t2 * h)));
  }

  Tensor predicted(const Tensor& x, std::size_t i, std::size_t order) const {
    const double c = 1 + tau(i) * tau(i);
    const double from = lambda_of(sigma(i)), to = lambda_of(sigma(i + 1)), h = to - from;
    const double before = order == 2 ? lambda_of(sigma(i - 1)) : 0;
    auto by = shares(order, from, to, c, from, before);
    if (order == 2) {
      const double more = std::exp(c * to) *
                          (h * h / 2 - (h * c - 1 + std::exp(-c * h)) / (c * c)) / (from - before);
      by[0] += more;
      by[1] -= more;
    }
    return moved(x, i, {last_, before_}, std::move(by), c);
  }

  /// The sample at level `i` anew, from the one before it, with what the model says here.
  Tensor corrected(const Tensor& estimate, std::size_t i) const {
    const double c = 1 + tau(i - 1) * tau(i - 1);
    const double from = lambda_of(sigma(i - 1)), to = lambda_of(sigma(i)), h = to - from;
    auto by = shares(corrector_order_, from, to, c, to, from);
    if (corrector_order_ == 2) {
      const double more = std::exp(c * to) * (h / 2 - (h * c - 1 + std::exp(-c * h)) / (c * c * h));
      by[0] += more;
      by[1] -= more;
    }
    return moved(last_sample_, i - 1, {estimate, last_}, std::move(by), c);
  }

  WanSchedule schedule_;
  std::size_t corrector_order_ = 1;
  Tensor last_, before_, last_sample_, last_noise_;
};

}  // namespace

std::unique_ptr<WanSolver> sa_solver(const WanSchedule& schedule) {
  return std::make_unique<SaSolver>(schedule);
}

}  // namespace distorch::sampling
