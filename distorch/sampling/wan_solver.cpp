#include "distorch/sampling/wan_solver.h"

#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <limits>
#include <vector>

#include "distorch/base/error.h"

namespace distorch::sampling {
namespace {

/// A noise level in the terms of the solvers: x = alpha · x0 + sigma · noise.
struct Level {
  double sigma;
  double alpha() const { return 1 - sigma; }
  /// Half the logarithm of the signal to noise ratio; infinite at both ends.
  double lambda() const { return std::log(alpha()) - std::log(sigma); }
};

class Steps : public WanSolver {
 public:
  explicit Steps(const WanSchedule& schedule)
      : sigmas_(schedule.sigmas), calls_(schedule.timesteps.size()) {}

 protected:
  Level level(std::size_t i) const { return Level{sigmas_.at(i)}; }
  bool is_last(std::size_t i) const { return i + 1 == calls_; }
  std::size_t calls() const { return calls_; }
  at::Tensor x0(const at::Tensor& x, const at::Tensor& velocity, std::size_t i) const {
    return x - velocity * level(i).sigma;
  }
  static at::Tensor noise_like(const at::Tensor& x, at::Generator& generator) {
    return at::randn(x.sizes(), generator, x.options().device(at::kCPU)).to(x.device());
  }

 private:
  Sigmas sigmas_;
  std::size_t calls_;
};

class Euler : public Steps {
 public:
  using Steps::Steps;
  at::Tensor step(const at::Tensor& x, const at::Tensor& velocity, std::size_t i,
                  at::Generator&) override {
    return x + velocity * (level(i + 1).sigma - level(i).sigma);
  }
};

/// Consistency sampling: to the clean latent and back to the next level with fresh noise.
class Lcm : public Steps {
 public:
  using Steps::Steps;
  at::Tensor step(const at::Tensor& x, const at::Tensor& velocity, std::size_t i,
                  at::Generator& generator) override {
    const double next = level(i + 1).sigma;
    return x0(x, velocity, i) * (1 - next) + noise_like(x, generator) * next;
  }
};

/// UniPC of second order with bh2, for data prediction: the sample is corrected by what the model
/// said about it, then the next is predicted.
class UniPc : public Steps {
 public:
  using Steps::Steps;
  at::Tensor step(const at::Tensor& given, const at::Tensor& velocity, std::size_t i,
                  at::Generator&) override {
    const at::Tensor estimate = x0(given, velocity, i);
    const at::Tensor x = i == 0 ? given : corrected(estimate, i);
    order_ = i == 0 || is_last(i) ? 1 : 2;
    at::Tensor next = predicted(x, estimate, i);
    corrected_ = x;
    before_ = last_;
    last_ = estimate;
    return next;
  }

 private:
  at::Tensor predicted(const at::Tensor& x, const at::Tensor& estimate, std::size_t i) const {
    const Level from = level(i), to = level(i + 1);
    if (to.sigma == 0) {
      return estimate;
    }
    const double h = to.lambda() - from.lambda();
    const double decay = std::expm1(-h);
    at::Tensor next = x * (to.sigma / from.sigma) - estimate * (to.alpha() * decay);
    if (order_ == 2) {
      const double r = (level(i - 1).lambda() - from.lambda()) / h;
      next = next - (last_ - estimate) * (0.5 * to.alpha() * decay / r);
    }
    return next;
  }

  at::Tensor corrected(const at::Tensor& estimate, std::size_t i) const {
    const Level from = level(i - 1), to = level(i);
    const double h = to.lambda() - from.lambda();
    const double decay = std::expm1(-h);
    const at::Tensor base = corrected_ * (to.sigma / from.sigma) - last_ * (to.alpha() * decay);
    if (order_ == 1) {
      return base - (estimate - last_) * (0.5 * to.alpha() * decay);
    }
    const double r = (level(i - 2).lambda() - from.lambda()) / h;
    const double z = -h;
    const double phi = decay / z - 1;
    const double b1 = phi / decay;
    const double b2 = 2 * (phi / z - 0.5) / decay;
    // rho1 + rho2 = b1 and r · rho1 + rho2 = b2.
    const double rho1 = (b2 - b1) / (r - 1);
    const double rho2 = b1 - rho1;
    return base -
           ((before_ - last_) * (rho1 / r) + (estimate - last_) * rho2) * (to.alpha() * decay);
  }

  int order_ = 1;
  at::Tensor corrected_, last_, before_;
};

/// DPM-Solver++ 2M, midpoint; `stochastic`: the form for the SDE.
class DpmPlusPlus : public Steps {
 public:
  DpmPlusPlus(const WanSchedule& schedule, bool stochastic)
      : Steps(schedule), stochastic_(stochastic) {}
  at::Tensor step(const at::Tensor& x, const at::Tensor& velocity, std::size_t i,
                  at::Generator& generator) override {
    const Level from = level(i), to = level(i + 1);
    const at::Tensor estimate = x0(x, velocity, i);
    const double h =
        to.sigma == 0 ? std::numeric_limits<double>::infinity() : to.lambda() - from.lambda();
    at::Tensor target = estimate;
    if (i > 0 && !is_last(i)) {
      const double h_before = from.lambda() - level(i - 1).lambda();
      target = target + (estimate - last_) * (0.5 * h / h_before);
    }
    last_ = estimate;
    const double shrink = to.sigma / from.sigma;
    if (!stochastic_) {
      return x * shrink - target * (to.alpha() * std::expm1(-h));
    }
    const double renewed = -std::expm1(-2 * h);
    return x * (shrink * std::exp(-h)) + target * (to.alpha() * renewed) +
           noise_like(x, generator) * (to.sigma * std::sqrt(renewed));
  }

 private:
  bool stochastic_;
  at::Tensor last_;
};

/// DEIS of second order over rho = sigma / alpha: the noise estimate is a line in log rho.
class Deis : public Steps {
 public:
  using Steps::Steps;
  at::Tensor step(const at::Tensor& x, const at::Tensor& velocity, std::size_t i,
                  at::Generator&) override {
    constexpr std::size_t kFewSteps = 15;
    const Level from = level(i), to = level(i + 1);
    const at::Tensor noise = (x - x0(x, velocity, i) * from.alpha()) / from.sigma;
    const bool first_order = i == 0 || (is_last(i) && calls() < kFewSteps);
    at::Tensor next;
    if (first_order) {
      const double h = to.lambda() - from.lambda();
      next = x * (to.alpha() / from.alpha()) - noise * (to.sigma * std::expm1(h));
    } else {
      const double rho = rho_of(from), next_rho = rho_of(to), rho_before = rho_of(level(i - 1));
      const double here = integral(next_rho, rho, rho_before) - integral(rho, rho, rho_before);
      const double there = integral(next_rho, rho_before, rho) - integral(rho, rho_before, rho);
      next = (x / from.alpha() + noise * here + last_ * there) * to.alpha();
    }
    last_ = noise;
    return next;
  }

 private:
  static double rho_of(const Level& level) { return level.sigma / level.alpha(); }
  /// Of the polynomial that is 1 at b and 0 at c, in log rho.
  static double integral(double t, double b, double c) {
    return t * (std::log(t) - std::log(c) - 1) / (std::log(b) - std::log(c));
  }

  at::Tensor last_;
};

/// Second order exponential integrator (arXiv:2308.02157) over -log sigma.
class ResMultistep : public Steps {
 public:
  using Steps::Steps;
  at::Tensor step(const at::Tensor& x, const at::Tensor& velocity, std::size_t i,
                  at::Generator&) override {
    const double sigma = level(i).sigma, next = level(i + 1).sigma;
    const at::Tensor estimate = x0(x, velocity, i);
    at::Tensor result;
    if (!last_.defined() || next == 0) {
      result = x + velocity * (next - sigma);
    } else {
      const double h = std::log(sigma) - std::log(next);
      const double c = (std::log(sigma) - std::log(level(i - 1).sigma)) / h;
      const double phi1 = std::expm1(-h) / -h;
      const double phi2 = (phi1 - 1) / -h;
      result = x * std::exp(-h) + (estimate * (phi1 - phi2 / c) + last_ * (phi2 / c)) * h;
    }
    last_ = estimate;
    return result;
  }

 private:
  at::Tensor last_;
};

/// Adams-Bashforth on velocities, steadied near the end.
class SaOde : public Steps {
 public:
  SaOde(const WanSchedule& schedule, const SaOdeOptions& options)
      : Steps(schedule), options_(options), long_run_(schedule.steps > kShortRun) {}
  at::Tensor step(const at::Tensor& x, const at::Tensor& velocity, std::size_t i,
                  at::Generator&) override {
    constexpr double kVeryLow = 0.05;
    const double sigma = level(i).sigma;
    seen_.push_back(velocity);
    if (seen_.size() > 3) {
      seen_.erase(seen_.begin());
    }
    at::Tensor combined = combination(std::min<std::size_t>(order(sigma), seen_.size()));
    double length = level(i + 1).sigma - sigma;
    if (long_run_ && options_.smooth && sigma < options_.threshold) {
      if (memory_.defined()) {
        combined = memory_ * options_.smoothing + combined * (1 - options_.smoothing);
      }
      length *= 0.5 + 0.5 * sigma / options_.threshold;
    }
    memory_ = combined;
    at::Tensor next = x + combined * length;
    if (long_run_ && sigma < kVeryLow && seen_.size() == 3) {
      const double share = sigma / kVeryLow;
      const at::Tensor mean = (seen_[0] + seen_[1] + seen_[2]) / 3;
      next = next * share + (x + mean * length) * (1 - share);
    }
    return next;
  }

 private:
  static constexpr std::int64_t kShortRun = 8;

  std::size_t order(double sigma) const {
    constexpr double kHigh = 0.7, kLow = 0.15;
    if (!options_.adaptive_order) {
      return 3;
    }
    return !long_run_ || sigma > kHigh || sigma <= kLow ? 2 : 3;
  }
  at::Tensor combination(std::size_t order) const {
    const at::Tensor& v = seen_.back();
    if (order == 1) {
      return v;
    }
    const at::Tensor& before = seen_[seen_.size() - 2];
    if (order == 2) {
      return v * 1.5 - before * 0.5;
    }
    return v * (23.0 / 12) - before * (16.0 / 12) + seen_.front() * (5.0 / 12);
  }

  SaOdeOptions options_;
  bool long_run_;
  std::vector<at::Tensor> seen_;
  at::Tensor memory_;
};

}  // namespace

std::unique_ptr<WanSolver> wan_solver(const WanSchedule& schedule, const SaOdeOptions& sa_ode) {
  const std::string name = schedule.scheduler.substr(0, schedule.scheduler.find('/'));
  if (name == "unipc") {
    return std::make_unique<UniPc>(schedule);
  }
  if (name == "dpm++" || name == "dpm++_sde") {
    return std::make_unique<DpmPlusPlus>(schedule, name == "dpm++_sde");
  }
  if (name == "lcm") {
    return std::make_unique<Lcm>(schedule);
  }
  if (name == "deis") {
    return std::make_unique<Deis>(schedule);
  }
  if (name == "res_multistep") {
    return std::make_unique<ResMultistep>(schedule);
  }
  if (name == "sa_ode_stable") {
    return std::make_unique<SaOde>(schedule, sa_ode);
  }
  return std::make_unique<Euler>(schedule);
}

}  // namespace distorch::sampling
