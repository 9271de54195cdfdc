// DPM-Solver (arXiv:2206.00927) with orders 1 to 3 in t = -log(sigma): "fast" with a fixed number
// of evaluations, "adaptive" with a step size controlled by the difference of two orders.
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/sampling/samplers/step_math.h"

namespace distorch::sampling {
namespace {

float sigma_at(float t) { return f32::exp(-t); }

// The steps that start at one (x, t); evaluations are shared between orders.
class StartPoint {
 public:
  StartPoint(Denoiser& model, const at::Tensor& x, float t)
      : model_(model), x_(x), t_(t), eps_(noise_estimate(x, t)) {}

  at::Tensor denoised() const { return x_ - eps_ * sigma_at(t_); }

  at::Tensor first_order(float to) const {
    return x_ - eps_ * (sigma_at(to) * f32::expm1(to - t_));
  }

  at::Tensor second_order(float to, float part) {
    const float h = to - t_;
    const float scale = sigma_at(to) * f32::expm1(h);
    const float correction = sigma_at(to) / (2 * part) * f32::expm1(h);
    return x_ - eps_ * scale - (inner(h, part) - eps_) * correction;
  }

  at::Tensor third_order(float to) {
    constexpr float kPart1 = 1.0f / 3;
    constexpr float kPart2 = 2.0f / 3;
    const float h = to - t_;
    const at::Tensor bend = inner(h, kPart1) - eps_;
    const float middle = t_ + kPart2 * h;
    const float grown = f32::expm1(kPart2 * h);
    const float bend_scale = sigma_at(middle) * (kPart2 / kPart1) * (grown / (kPart2 * h) - 1);
    const at::Tensor at_middle = x_ - eps_ * (sigma_at(middle) * grown) - bend * bend_scale;
    const at::Tensor eps_middle = noise_estimate(at_middle, middle);
    const float whole = f32::expm1(h);
    return x_ - eps_ * (sigma_at(to) * whole) -
           (eps_middle - eps_) * (sigma_at(to) / kPart2 * (whole / h - 1));
  }

 private:
  at::Tensor noise_estimate(const at::Tensor& x, float t) {
    return (x - model_(x, sigma_at(t))) / sigma_at(t);
  }

  // The noise estimate at t + part * h, made once: a second- and a third-order step share it.
  const at::Tensor& inner(float h, float part) {
    if (!inner_.defined()) {
      const float at = t_ + part * h;
      inner_ = noise_estimate(x_ - eps_ * (sigma_at(at) * f32::expm1(part * h)), at);
    }
    return inner_;
  }

  Denoiser& model_;
  at::Tensor x_;
  float t_;
  at::Tensor eps_;
  at::Tensor inner_;
};

// The last level above 0.
float end_sigma(const Sigmas& sigmas) {
  const float low = sigmas.back() == 0 ? sigmas[sigmas.size() - 2] : sigmas.back();
  if (!(low > 0) || !(sigmas.front() > 0)) {
    throw Error(ErrorKind::Usage, "scheduler", "DPM-Solver needs noise levels above 0");
  }
  return low;
}

// PID control of a step size with the proportional and derivative parts at 0, as the samplers use
// it.
class StepSize {
 public:
  StepSize(double initial, double order) : size_(initial), exponent_(1.0 / order) {}
  double size() const { return size_; }
  /// Is a step with this error good enough? Adapts the size either way.
  bool accepts(double error) {
    constexpr double kSafety = 0.81;
    constexpr double kEpsilon = 1e-8;
    const double wish = std::pow(1 / (error + kEpsilon), exponent_);
    const double factor = 1 + std::atan(wish - 1);
    size_ *= factor;
    return factor >= kSafety;
  }

 private:
  double size_;
  double exponent_;
};

}  // namespace

at::Tensor sample_dpm_fast(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                           const SamplerContext& context) {
  if (sigmas.size() <= 1) {
    return x;
  }
  const int evaluations = step_count(sigmas);
  const int rounds = evaluations / 3 + 1;
  const at::Tensor t =
      at::linspace(-f32::log(sigmas.front()), -f32::log(end_sigma(sigmas)), rounds + 1, at::kFloat);
  const float* times = t.const_data_ptr<float>();
  std::vector<int> orders(static_cast<std::size_t>(rounds), 3);
  if (evaluations % 3 == 0) {
    orders[rounds - 2] = 2;
    orders[rounds - 1] = 1;
  } else {
    orders[rounds - 1] = evaluations % 3;
  }
  for (int i = 0; i < rounds; ++i) {
    StartPoint start(model, x, times[i]);
    const at::Tensor denoised = start.denoised();
    context.report({i, evaluations, sigma_at(times[i]), x, denoised});
    switch (orders[i]) {
      case 1: x = start.first_order(times[i + 1]); break;
      case 2: x = start.second_order(times[i + 1], 0.5f); break;
      default: x = start.third_order(times[i + 1]);
    }
  }
  return x;
}

at::Tensor sample_dpm_adaptive(Denoiser& model, at::Tensor x, const Sigmas& sigmas,
                               const SamplerContext& context) {
  if (sigmas.size() <= 1) {
    return x;
  }
  constexpr double kAbsolute = 0.0078;
  constexpr double kRelative = 0.05;
  constexpr double kFirstStep = 0.05;
  constexpr double kOrder = 3;
  const float end = -f32::log(end_sigma(sigmas));
  float t = -f32::log(sigmas.front());
  at::Tensor previous = x;
  StepSize step(kFirstStep, kOrder);
  for (int taken = 0; t < end - 1e-5f; ++taken) {
    const float to = std::min(end, t + static_cast<float>(step.size()));
    StartPoint start(model, x, t);
    const at::Tensor denoised = start.denoised();
    const at::Tensor low = start.second_order(to, 1.0f / 3);
    const at::Tensor high = start.third_order(to);
    const at::Tensor tolerance =
        (at::maximum(low.abs(), previous.abs()) * kRelative).clamp_min(kAbsolute);
    const double error = at::linalg_vector_norm((low - high) / tolerance).item().toDouble() /
                         std::sqrt(static_cast<double>(x.numel()));
    if (!std::isfinite(error)) {
      context.report({taken, step_count(sigmas), sigma_at(t), x, denoised});
      return high;  // the caller finds and names what is not a number; no step size can mend it
    }
    if (step.accepts(error)) {
      previous = low;
      x = high;
      t = to;
    }
    context.report({taken, step_count(sigmas), sigma_at(t), x, denoised});
  }
  return x;
}

}  // namespace distorch::sampling
