// DPM-Solver (arXiv:2206.00927) with orders 1 to 3 in t = -log(sigma): "fast" with a fixed number
// of evaluations, "adaptive" with a step size controlled by the difference of two orders.
#include <array>
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

// PID control of a step size by the errors of the newest step and of the two accepted before it.
class StepSize {
 public:
  StepSize(const SamplerOptions::Adaptive& options, double first, double order)
      : size_(first),
        safety_(options.safety),
        exponents_{(options.proportional + options.integral + options.derivative) / order,
                   -(options.proportional + 2 * options.derivative) / order,
                   options.derivative / order} {}
  double size() const { return size_; }
  /// Is a step with this error good enough? Adapts the size either way.
  bool accepts(double error) {
    constexpr double kEpsilon = 1e-8;
    inverse_[0] = 1 / (error + kEpsilon);
    if (inverse_[1] == 0) {
      inverse_.fill(inverse_[0]);
    }
    double wish = 1;
    for (std::size_t k = 0; k < inverse_.size(); ++k) {
      wish *= std::pow(inverse_[k], exponents_[k]);
    }
    const double factor = 1 + std::atan(wish - 1);
    size_ *= factor;
    if (factor < safety_) {
      return false;
    }
    inverse_[2] = inverse_[1];
    inverse_[1] = inverse_[0];
    return true;
  }

 private:
  double size_, safety_;
  std::array<double, 3> exponents_;
  std::array<double, 3> inverse_{};  // newest first; 0 before the first step
};

// Where a step from t to `to` leads before noise is added, and how much noise that is.
struct NoisyStep {
  float to;
  float noise;
};
NoisyStep noisy_step(float t, float to, float end, float eta) {
  if (eta == 0) {
    return {to, 0.0f};
  }
  const AncestralStep step = ancestral_step(sigma_at(t), sigma_at(to), eta);
  const float down = std::min(end, -f32::log(step.down));
  return {down, f32::sqrt(sigma_at(to) * sigma_at(to) - sigma_at(down) * sigma_at(down))};
}

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
  const SamplerOptions::Adaptive& options = context.options.adaptive;
  const auto eta = static_cast<float>(context.options.eta.value_or(0.0));
  const float s_noise = s_noise_of(context);
  const float end = -f32::log(end_sigma(sigmas));
  float t = -f32::log(sigmas.front());
  const bool forward = end > t;
  if (!forward && eta != 0) {
    throw Error(ErrorKind::Usage, "sampler",
                "dpm_adaptive adds no noise on the way up: set eta to 0");
  }
  at::Tensor previous = x;
  const double first = std::abs(options.first_step) * (forward ? 1 : -1);
  StepSize step(options, first, eta != 0 ? 1.5 : options.order);
  auto noise = gaussian_noise(x, context.seed);
  for (int taken = 0; forward ? t < end - 1e-5f : t > end + 1e-5f; ++taken) {
    const float wish = t + static_cast<float>(step.size());
    const float to = forward ? std::min(end, wish) : std::max(end, wish);
    if (to == t) {
      throw Error(ErrorKind::Usage, "sampler",
                  "dpm_adaptive finds no step that is exact enough: raise rtol or atol, or lower "
                  "accept_safety");
    }
    const NoisyStep aim = noisy_step(t, to, end, eta);
    StartPoint start(model, x, t);
    const at::Tensor denoised = start.denoised();
    const bool third = options.order == 3;
    const at::Tensor low = third ? start.second_order(aim.to, 1.0f / 3) : start.first_order(aim.to);
    const at::Tensor high = third ? start.third_order(aim.to) : start.second_order(aim.to, 0.5f);
    const at::Tensor tolerance =
        (at::maximum(low.abs(), previous.abs()) * options.relative).clamp_min(options.absolute);
    const double error = at::linalg_vector_norm((low - high) / tolerance).item().toDouble() /
                         std::sqrt(static_cast<double>(x.numel()));
    if (!std::isfinite(error)) {
      context.report({taken, step_count(sigmas), sigma_at(t), x, denoised});
      return high;  // the caller finds and names what is not a number; no step size can mend it
    }
    if (step.accepts(error)) {
      previous = low;
      x = eta != 0 ? high + (*noise)(sigma_at(t), sigma_at(to)) * (aim.noise * s_noise) : high;
      t = to;
    }
    context.report({taken, step_count(sigmas), sigma_at(t), x, denoised});
  }
  return x;
}

}  // namespace distorch::sampling
