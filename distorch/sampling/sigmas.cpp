#include "distorch/sampling/sigmas.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/sampling/schedules.h"

namespace distorch::sampling {
namespace {

Sigmas values_of(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kFloat).contiguous();
  const float* data = flat.const_data_ptr<float>();
  return Sigmas(data, data + flat.numel());
}

Sigmas then_zero(Sigmas sigmas) {
  sigmas.push_back(0.0f);
  return sigmas;
}

void check_positive(const char* name, double value) {
  if (!(value > 0)) {
    throw Error(ErrorKind::Usage, name, fmt::format("{} is not above 0", value));
  }
}

void check_range(SigmaRange range) {
  check_positive("sigma_min", range.min);
  check_positive("sigma_max", range.max);
}

at::Tensor ramp(double from, double to, int steps) {
  return at::linspace(from, to, steps, at::kFloat);
}

}  // namespace

Sigmas karras_sigmas(int steps, SigmaRange range, double rho) {
  check_positive("rho", rho);
  const double low = std::pow(range.min, 1 / rho);
  const double high = std::pow(range.max, 1 / rho);
  return then_zero(values_of((high + ramp(0, 1, steps) * (low - high)).pow(rho)));
}

Sigmas exponential_sigmas(int steps, SigmaRange range) {
  check_range(range);
  return then_zero(values_of(ramp(std::log(range.max), std::log(range.min), steps).exp()));
}

Sigmas polyexponential_sigmas(int steps, SigmaRange range, double rho) {
  check_range(range);
  const double low = std::log(range.min);
  const at::Tensor part = ramp(1, 0, steps).pow(rho);
  return then_zero(values_of((part * (std::log(range.max) - low) + low).exp()));
}

Sigmas laplace_sigmas(int steps, SigmaRange range, double mu, double beta) {
  constexpr double kAlmostNothing = 1e-5;  // keeps the logarithm finite at both ends
  const at::Tensor from_middle = 0.5 - ramp(0, 1, steps);
  const at::Tensor spread = (1 - 2 * from_middle.abs() + kAlmostNothing).log();
  const at::Tensor log_sigma = mu - beta * from_middle.sign() * spread;
  return values_of(log_sigma.exp().clamp(range.min, range.max));
}

Sigmas vp_sigmas(int steps, double beta_d, double beta_min, double eps_s) {
  const at::Tensor t = ramp(1, eps_s, steps);
  return then_zero(values_of((beta_d * t.pow(2) / 2 + beta_min * t).expm1().sqrt()));
}

Sigmas beta_sigmas(const ModelSampling& model, int steps, double alpha, double beta) {
  check_positive("alpha", alpha);
  check_positive("beta", beta);
  const Sigmas& table = model.sigmas();
  const double last_index = static_cast<double>(table.size() - 1);
  Sigmas out;
  double previous = -1;
  for (int i = 0; i < steps; ++i) {
    const double p = 1 - i * (1.0 / steps);
    const double index = std::nearbyint(beta_quantile(p, alpha, beta) * last_index);
    if (index != previous) {
      out.push_back(table[static_cast<std::size_t>(index)]);
    }
    previous = index;
  }
  return then_zero(std::move(out));
}

Sigmas turbo_sigmas(const ModelSampling& model, int steps, double denoise) {
  constexpr int kTimesteps = 10, kSpacing = 100;
  const int skipped = kTimesteps - static_cast<int>(kTimesteps * denoise);
  Sigmas out;
  for (int k = skipped; k < std::min(kTimesteps, skipped + steps); ++k) {
    out.push_back(model.sigma(static_cast<float>((kTimesteps - k) * kSpacing - 1)));
  }
  return then_zero(std::move(out));
}

Sigmas ltxv_sigmas(int steps, const LtxvShift& shift) {
  constexpr double kFewest = 1024, kMost = 4096;
  const double slope = (shift.max_shift - shift.base_shift) / (kMost - kFewest);
  const double exponent =
      static_cast<double>(shift.tokens) * slope + (shift.base_shift - slope * kFewest);
  const double grown = std::exp(exponent);
  // At 0 the formula divides by 0: the last level stays 0.
  at::Tensor levels = ramp(1, 0, steps + 1).narrow(0, 0, steps);
  levels = grown / (grown + (1 / levels - 1));
  if (shift.stretch) {
    const at::Tensor removed = 1.0 - levels;
    levels = 1.0 - removed / (removed[steps - 1] / (1.0 - shift.terminal));
  }
  return then_zero(values_of(levels));
}

Sigmas flux2_sigmas(int steps, std::int64_t width, std::int64_t height) {
  constexpr double kMostTokens = 4300;  // beyond, the number of steps does not count
  constexpr double kFewSteps = 10, kManySteps = 200;
  const double tokens = std::nearbyint(static_cast<double>(width * height) / (16 * 16));
  const double many = 0.00016927 * tokens + 0.45666666;
  double exponent = many;
  if (tokens <= kMostTokens) {
    const double few = 8.73809524e-05 * tokens + 1.89833333;
    const double slope = (many - few) / (kManySteps - kFewSteps);
    exponent = slope * steps + (many - kManySteps * slope);
  }
  const double grown = std::exp(exponent);
  const at::Tensor levels = ramp(1, 0, steps + 1).narrow(0, 0, steps);
  return then_zero(values_of(grown / (grown + (1 / levels - 1))));
}

std::pair<Sigmas, Sigmas> split_sigmas(const Sigmas& sigmas, std::size_t step) {
  const auto at = [&](std::size_t n) {
    return sigmas.begin() + static_cast<std::ptrdiff_t>(std::min(n, sigmas.size()));
  };
  return {Sigmas(sigmas.begin(), at(step + 1)), Sigmas(at(step), sigmas.end())};
}

std::pair<Sigmas, Sigmas> split_sigmas_by_denoise(const Sigmas& sigmas, double denoise) {
  if (sigmas.empty()) {
    return {};
  }
  const double steps = static_cast<double>(sigmas.size() - 1);
  const auto low = static_cast<std::ptrdiff_t>(std::nearbyint(steps * denoise));
  // No step for the second part leaves none for the first either, as in the reference.
  const auto high_end = low == 0 ? sigmas.begin() : sigmas.end() - low;
  return {Sigmas(sigmas.begin(), high_end), Sigmas(sigmas.end() - low - 1, sigmas.end())};
}

Sigmas flip_sigmas(Sigmas sigmas) {
  constexpr float kAlmostNothing = 0.0001f;  // in place of 0, which no step can start from
  std::reverse(sigmas.begin(), sigmas.end());
  if (!sigmas.empty() && sigmas.front() == 0) {
    sigmas.front() = kAlmostNothing;
  }
  return sigmas;
}

Sigmas extend_sigmas(const Sigmas& sigmas, int steps, double start_at, double end_at,
                     Spacing spacing) {
  at::Tensor part = ramp(0, 1, steps + 1).slice(0, 1, -1);
  constexpr double kPi = 3.14159265358979323846;
  if (spacing == Spacing::Cosine) {
    part = (part * kPi / 2).sin();
  } else if (spacing == Spacing::Sine) {
    part = 1 - (part * kPi / 2).cos();
  }
  Sigmas out;
  for (std::size_t i = 0; i < sigmas.size(); ++i) {
    const float level = sigmas[i];
    out.push_back(level);
    const bool last = i + 1 == sigmas.size();
    const bool below_start = start_at < 0 || level <= static_cast<float>(start_at);
    if (!last && below_start && level >= static_cast<float>(end_at)) {
      const Sigmas between = values_of(part * (sigmas[i + 1] - level) + level);
      out.insert(out.end(), between.begin(), between.end());
    }
  }
  return out;
}

Sigmas parse_sigmas(std::string_view text) {
  Sigmas out;
  const char* end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    double value = 0;
    const auto [rest, problem] = std::from_chars(at, end, value);
    const bool number = problem == std::errc() && std::isfinite(value);
    if (number) {
      out.push_back(static_cast<float>(value));
    }
    at = number ? rest : at + 1;
  }
  return out;
}

}  // namespace distorch::sampling
