#include "distorch/sampling/schedules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/math/distributions/beta.hpp>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/sampling/sigmas.h"

namespace distorch::sampling {
namespace {

Sigmas values_of(const at::Tensor& tensor) {
  at::Tensor flat = tensor.to(at::kFloat).contiguous();
  const float* data = flat.const_data_ptr<float>();
  return Sigmas(data, data + flat.numel());
}

bool is_zero(float sigma) { return std::abs(sigma) <= 1e-5f; }

Sigmas simple(const ModelSampling& model, int steps) {
  const Sigmas& table = model.sigmas();
  const double stride = static_cast<double>(table.size()) / steps;
  Sigmas out;
  for (int i = 0; i < steps; ++i) {
    out.push_back(table[table.size() - 1 - static_cast<std::size_t>(i * stride)]);
  }
  out.push_back(0.0f);
  return out;
}

// Timesteps evenly spaced from the highest level to the lowest. `open_end`: the lowest belongs to
// the step after the last ("sgm").
Sigmas even_timesteps(const ModelSampling& model, int steps, bool open_end) {
  const float start = model.timestep(model.sigma_max());
  const float end = model.timestep(model.sigma_min());
  bool append_zero = true;
  int points = steps;
  if (open_end) {
    points = steps + 1;
  } else if (is_zero(model.sigma(end))) {
    points = steps + 1;
    append_zero = false;
  }
  Sigmas timesteps = values_of(at::linspace(start, end, points, at::kFloat));
  if (open_end) {
    timesteps.pop_back();
  }
  Sigmas out;
  for (float timestep : timesteps) {
    out.push_back(model.sigma(timestep));
  }
  if (append_zero) {
    out.push_back(0.0f);
  }
  return out;
}

Sigmas normal(const ModelSampling& model, int steps) { return even_timesteps(model, steps, false); }
Sigmas sgm_uniform(const ModelSampling& model, int steps) {
  return even_timesteps(model, steps, true);
}

SigmaRange range_of(const ModelSampling& model) { return {model.sigma_max(), model.sigma_min()}; }

Sigmas karras(const ModelSampling& model, int steps) {
  return karras_sigmas(steps, range_of(model));
}

Sigmas exponential(const ModelSampling& model, int steps) {
  return exponential_sigmas(steps, range_of(model));
}

// Every n-th level from the second lowest upward: the number of steps is not always the one asked
// for.
Sigmas ddim_uniform(const ModelSampling& model, int steps) {
  const Sigmas& table = model.sigmas();
  Sigmas out;
  if (is_zero(table[1])) {
    ++steps;
  } else {
    out.push_back(0.0f);
  }
  const std::size_t stride =
      std::max<std::size_t>(table.size() / static_cast<std::size_t>(steps), 1);
  for (std::size_t i = 1; i < table.size(); i += stride) {
    out.push_back(table[i]);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

// arXiv:2407.12173.
Sigmas beta(const ModelSampling& model, int steps) { return beta_sigmas(model, steps, 0.6, 0.6); }

// A line for the first half of the steps, which removes 2.5 % of the noise, then a parabola that
// meets it with the same slope.
Sigmas linear_quadratic(const ModelSampling& model, int steps) {
  constexpr double kLinearShare = 0.025;
  std::vector<double> removed;
  if (steps == 1) {
    removed = {0.0, 1.0};
  } else {
    const int linear = steps / 2;
    const int quadratic = steps - linear;
    const double rest = linear - kLinearShare * steps;
    const double a = rest / (linear * static_cast<double>(quadratic) * quadratic);
    const double b =
        kLinearShare / linear - 2 * rest / (static_cast<double>(quadratic) * quadratic);
    const double c = a * (static_cast<double>(linear) * linear);
    for (int i = 0; i < linear; ++i) {
      removed.push_back(i * kLinearShare / linear);
    }
    for (int i = linear; i < steps; ++i) {
      removed.push_back(a * (static_cast<double>(i) * i) + b * i + c);
    }
    removed.push_back(1.0);
  }
  Sigmas out;
  for (double part : removed) {
    out.push_back(static_cast<float>(1.0 - part) * model.sigma_max());
  }
  return out;
}

// Evenly spaced in arctan(sigma). One step starts at the highest level (the reference divides 0 by
// 0).
Sigmas kl_optimal(const ModelSampling& model, int steps) {
  const double low = std::atan(static_cast<double>(model.sigma_min()));
  const double high = std::atan(static_cast<double>(model.sigma_max()));
  at::Tensor part = at::arange(steps, at::kFloat) / std::max(steps - 1, 1);
  Sigmas out = values_of((part * low + (1 - part) * high).tan());
  out.push_back(0.0f);
  return out;
}

}  // namespace

const std::vector<Schedule>& schedules() {
  static const std::vector<Schedule> all = {
      {"simple", simple},
      {"sgm_uniform", sgm_uniform},
      {"karras", karras},
      {"exponential", exponential},
      {"ddim_uniform", ddim_uniform},
      {"beta", beta},
      {"normal", normal},
      {"linear_quadratic", linear_quadratic},
      {"kl_optimal", kl_optimal},
  };
  return all;
}

std::vector<std::string> schedule_names() {
  std::vector<std::string> names;
  for (const Schedule& schedule : schedules()) {
    names.emplace_back(schedule.name);
  }
  return names;
}

Sigmas calculate_sigmas(const ModelSampling& model, std::string_view schedule, int steps) {
  if (steps < 1) {
    throw Error(ErrorKind::Usage, "steps", fmt::format("{} is less than 1", steps));
  }
  for (const Schedule& entry : schedules()) {
    if (entry.name == schedule) {
      return entry.make(model, steps);
    }
  }
  throw Error(ErrorKind::Usage, "scheduler",
              fmt::format("'{}' is not one of {}", schedule, fmt::join(schedule_names(), ", ")));
}

bool discards_penultimate_sigma(std::string_view sampler) {
  return sampler == "dpm_2" || sampler == "dpm_2_ancestral" || sampler == "uni_pc" ||
         sampler == "uni_pc_bh2";
}

Sigmas ksampler_sigmas(const ModelSampling& model, std::string_view sampler,
                       std::string_view schedule, int steps, double denoise) {
  constexpr double kWhole = 0.9999;
  constexpr double kMostSteps = 1'000'000;  // of a schedule of which only the end is taken
  if (denoise <= 0.0) {
    return {};
  }
  if (!(steps / denoise <= kMostSteps)) {
    throw Error(
        ErrorKind::Usage, "denoise",
        fmt::format("{:g} makes {} steps the end of {:g}; at most {:g} can be reckoned with",
                    denoise, steps, steps / denoise, kMostSteps));
  }
  const bool discard = discards_penultimate_sigma(sampler);
  const bool whole = denoise > kWhole;
  const int scheduled = whole ? steps : static_cast<int>(steps / denoise);
  Sigmas sigmas = calculate_sigmas(model, schedule, scheduled + (discard ? 1 : 0));
  if (discard) {
    sigmas.erase(sigmas.end() - 2);
  }
  const auto wanted = static_cast<std::size_t>(steps) + 1;
  if (!whole && sigmas.size() > wanted) {
    sigmas.erase(sigmas.begin(), sigmas.end() - static_cast<std::ptrdiff_t>(wanted));
  }
  return sigmas;
}

double beta_quantile(double p, double a, double b) {
  return boost::math::quantile(boost::math::beta_distribution<double>(a, b), p);
}

}  // namespace distorch::sampling
