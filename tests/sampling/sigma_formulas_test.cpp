// Noise levels against their formulas, number by number.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "distorch/base/error.h"
#include "distorch/sampling/schedules.h"
#include "distorch/sampling/sigmas.h"

using namespace distorch;
using namespace distorch::sampling;

namespace {

/// Checks levels 0 .. count - 1 and the 0 behind them.
template <class Formula>
void check(const Sigmas& sigmas, int count, Formula formula) {
  REQUIRE(sigmas.size() == static_cast<std::size_t>(count) + 1);
  for (int i = 0; i < count; ++i)
    CHECK(sigmas[static_cast<std::size_t>(i)] == doctest::Approx(formula(i)).epsilon(2e-5));
  CHECK(sigmas.back() == 0);
}

const SigmaRange kRange{20.0, 0.05};

}  // namespace

TEST_CASE("sigma formulas: Karras, exponential, polyexponential, variance preserving") {
  constexpr int n = 9;
  auto part = [](int i) { return i / (n - 1.0); };
  for (double rho : {1.0, 3.0, 7.0})
    check(karras_sigmas(n, kRange, rho), n, [&](int i) {
      auto low = std::pow(kRange.min, 1 / rho), high = std::pow(kRange.max, 1 / rho);
      return std::pow(high * (1 - part(i)) + low * part(i), rho);
    });
  check(exponential_sigmas(n, kRange), n,
        [&](int i) { return kRange.max * std::pow(kRange.min / kRange.max, part(i)); });
  check(polyexponential_sigmas(n, kRange, 1.0), n,
        [&](int i) { return exponential_sigmas(n, kRange)[static_cast<std::size_t>(i)]; });
  check(polyexponential_sigmas(n, kRange, 2.0), n, [&](int i) {
    return kRange.min * std::pow(kRange.max / kRange.min, (1 - part(i)) * (1 - part(i)));
  });
  check(vp_sigmas(n, 19.9, 0.1, 1e-3), n, [&](int i) {
    auto t = 1 + part(i) * (1e-3 - 1);
    return std::sqrt(std::exp(19.9 * t * t / 2 + 0.1 * t) - 1);
  });
  // One step is the highest level.
  CHECK(karras_sigmas(1, kRange)[0] == doctest::Approx(20));
  CHECK(exponential_sigmas(1, kRange)[0] == doctest::Approx(20));
}

TEST_CASE("sigma formulas: Laplace is even around mu and clamped to the range") {
  auto sigmas = laplace_sigmas(11, {1000, 0.0001}, 0.5, 0.5);
  REQUIRE(sigmas.size() == 11);
  for (std::size_t i = 1; i < 10; ++i)
    CHECK(std::log(sigmas[i]) + std::log(sigmas[10 - i]) == doctest::Approx(2 * 0.5).epsilon(1e-3));
  CHECK(sigmas[5] == doctest::Approx(std::exp(0.5)));
  // A tenth of the way: 1 - 2 · 0.4 of the mass.
  CHECK(std::log(sigmas[1]) == doctest::Approx(0.5 - 0.5 * std::log(0.2)).epsilon(1e-3));
  auto narrow = laplace_sigmas(11, {3, 1}, 0.5, 0.5);
  CHECK(narrow.front() == 3);
  CHECK(narrow.back() == 1);
}

TEST_CASE("sigma formulas: levels of a model at a Beta distribution's quantiles") {
  auto model = discrete_sampling();
  const auto& table = model->sigmas();
  // Beta(1, 1) is uniform.
  check(beta_sigmas(*model, 7, 1, 1), 7, [&](int i) {
    return table[static_cast<std::size_t>(std::nearbyint((1 - i / 7.0) * 999))];
  });
  // Beta(2, 1) has the quantile sqrt(p), Beta(1, 2) its mirror.
  check(beta_sigmas(*model, 5, 2, 1), 5, [&](int i) {
    return table[static_cast<std::size_t>(std::nearbyint(std::sqrt(1 - i / 5.0) * 999))];
  });
  check(beta_sigmas(*model, 5, 1, 2), 5, [&](int i) {
    return table[static_cast<std::size_t>(std::nearbyint((1 - std::sqrt(i / 5.0)) * 999))];
  });
  // More steps than levels: repeats are left out.
  auto many = beta_sigmas(*model, 3000, 1, 1);
  CHECK(many.size() < 1100);
  for (std::size_t i = 1; i < many.size(); ++i) CHECK(many[i] < many[i - 1]);
}

TEST_CASE("sigma formulas: turbo's timesteps, the part that a denoise leaves") {
  auto model = discrete_sampling();
  for (int kept = 0; kept <= 10; ++kept)
    for (int steps : {1, 4, 10, 12}) {
      auto sigmas = turbo_sigmas(*model, steps, kept / 10.0 + 0.01);
      check(sigmas, std::min(steps, kept),
            [&](int i) { return model->sigmas()[static_cast<std::size_t>((kept - i) * 100 - 1)]; });
    }
}

TEST_CASE("sigma formulas: LTXV's shift at its two ends, stretched to the last level") {
  auto shifted = [](double exponent, double t) {
    return std::exp(exponent) / (std::exp(exponent) + 1 / t - 1);
  };
  LtxvShift plain{.max_shift = 2.05, .base_shift = 0.95, .tokens = 4096, .stretch = false};
  check(ltxv_sigmas(8, plain), 8, [&](int i) { return shifted(2.05, 1 - i / 8.0); });
  plain.tokens = 1024;
  check(ltxv_sigmas(8, plain), 8, [&](int i) { return shifted(0.95, 1 - i / 8.0); });
  plain.tokens = 2560;
  check(ltxv_sigmas(8, plain), 8, [&](int i) { return shifted(1.5, 1 - i / 8.0); });
  LtxvShift stretched{.tokens = 4096, .terminal = 0.25};
  auto last = 1 - shifted(2.05, 1 / 8.0);
  check(ltxv_sigmas(8, stretched), 8,
        [&](int i) { return 1 - (1 - shifted(2.05, 1 - i / 8.0)) * (1 - 0.25) / last; });
  CHECK(ltxv_sigmas(8, stretched)[7] == doctest::Approx(0.25));
}

TEST_CASE("sigma formulas: FLUX.2's shift grows with the picture, and falls with few steps") {
  auto exponent_of = [](const Sigmas& sigmas) {
    // Half of the way: e^a / (e^a + 1).
    auto half = static_cast<double>(sigmas[(sigmas.size() - 1) / 2]);
    return std::log(half / (1 - half));
  };
  auto many = [](double tokens) { return 0.00016927 * tokens + 0.45666666; };
  auto few = [](double tokens) { return 8.73809524e-05 * tokens + 1.89833333; };
  for (auto [width, height] : {std::pair(1024, 1024), std::pair(512, 768), std::pair(1088, 1008)}) {
    const double tokens = width * height / 256.0;
    CHECK(exponent_of(flux2_sigmas(10, width, height)) ==
          doctest::Approx(few(tokens)).epsilon(1e-4));
    CHECK(exponent_of(flux2_sigmas(200, width, height)) ==
          doctest::Approx(many(tokens)).epsilon(1e-4));
    CHECK(exponent_of(flux2_sigmas(48, width, height)) ==
          doctest::Approx(few(tokens) + (many(tokens) - few(tokens)) * 38 / 190).epsilon(1e-4));
  }
  for (int steps : {10, 48, 200})
    CHECK(exponent_of(flux2_sigmas(steps, 2048, 1024)) ==
          doctest::Approx(many(8192)).epsilon(1e-4));
  // The last pictures for which steps count have 4300 tokens, the first without one more.
  CHECK(exponent_of(flux2_sigmas(10, 4300 * 16, 16)) == doctest::Approx(few(4300)).epsilon(1e-4));
  CHECK(exponent_of(flux2_sigmas(10, 4301 * 16, 16)) == doctest::Approx(many(4301)).epsilon(1e-4));
}

TEST_CASE("sigma formulas: splitting at every place keeps all steps") {
  const Sigmas sigmas = {5, 4, 3, 2, 1, 0};
  for (std::size_t step = 0; step < 5; ++step) {
    auto [high, low] = split_sigmas(sigmas, step);
    CHECK(high.size() == step + 1);
    CHECK(low.size() == 6 - step);
    CHECK(high.back() == low.front());
  }
  for (int kept = 1; kept <= 5; ++kept) {
    auto [high, low] = split_sigmas_by_denoise(sigmas, kept / 5.0);
    CHECK(low == Sigmas(sigmas.end() - kept - 1, sigmas.end()));
    CHECK(high == Sigmas(sigmas.begin(), sigmas.end() - kept));
  }
  CHECK(split_sigmas_by_denoise(sigmas, 0.0).first.empty());
  CHECK(split_sigmas_by_denoise(sigmas, 0.0).second == Sigmas{0});
  // 0.5 of five steps rounds to the even one.
  CHECK(split_sigmas_by_denoise(sigmas, 0.5).second.size() == 3);
}

TEST_CASE("sigma formulas: steps are put in only between the two levels, spaced as asked") {
  const Sigmas sigmas = {8, 4, 2, 0};
  CHECK(extend_sigmas(sigmas, 2, 4, 2, Spacing::Linear) == Sigmas{8, 4, 3, 2, 1, 0});
  CHECK(extend_sigmas(sigmas, 2, 3, 1, Spacing::Linear) == Sigmas{8, 4, 2, 1, 0});
  CHECK(extend_sigmas(sigmas, 2, 8, 4, Spacing::Linear) == Sigmas{8, 6, 4, 3, 2, 0});
  CHECK(extend_sigmas(sigmas, 4, -1, 5, Spacing::Linear) == Sigmas{8, 7, 6, 5, 4, 2, 0});
  auto cosine = extend_sigmas(sigmas, 3, 8, 8, Spacing::Cosine);
  auto sine = extend_sigmas(sigmas, 3, 8, 8, Spacing::Sine);
  REQUIRE(cosine.size() == 6);
  REQUIRE(sine.size() == 6);
  const double pi = std::acos(-1.0);
  for (int k : {1, 2}) {
    auto at = static_cast<std::size_t>(k);
    CHECK(cosine[at] == doctest::Approx(8 - 4 * std::sin(k / 3.0 * pi / 2)));
    CHECK(sine[at] == doctest::Approx(8 - 4 * (1 - std::cos(k / 3.0 * pi / 2))));
  }
  CHECK(flip_sigmas({3, 2, 1}) == Sigmas{1, 2, 3});
}

TEST_CASE("schedules: the plain ones, level by level") {
  auto model = discrete_sampling();
  const auto& table = model->sigmas();
  const double low = model->sigma_min(), high = model->sigma_max();
  for (int n : {1, 2, 7, 20}) {
    check(calculate_sigmas(*model, "simple", n), n,
          [&](int i) { return table[999 - static_cast<std::size_t>(i * 1000 / n)]; });
    check(calculate_sigmas(*model, "kl_optimal", n), n, [&](int i) {
      auto part = n > 1 ? i / (n - 1.0) : 0.0;
      return std::tan(part * std::atan(low) + (1 - part) * std::atan(high));
    });
    // 2.5 % of the noise in the first half, line by line; then ever more.
    auto quadratic = calculate_sigmas(*model, "linear_quadratic", n);
    REQUIRE(quadratic.size() == static_cast<std::size_t>(n) + 1);
    for (int i = 0; i <= n / 2 && n > 1; ++i)
      CHECK(quadratic[static_cast<std::size_t>(i)] ==
            doctest::Approx(high * (1 - 0.025 * i / (n / 2))));
    CHECK(quadratic.back() == 0);
    double step = 0;
    for (int i = n / 2; i < n && n > 1; ++i) {
      auto next =
          quadratic[static_cast<std::size_t>(i)] - quadratic[static_cast<std::size_t>(i) + 1];
      CHECK(next > step);
      step = next;
    }
  }
}

TEST_CASE("schedules: a denoise takes the end of a longer schedule") {
  auto model = discrete_sampling();
  for (auto schedule : schedule_names())
    for (auto [steps, denoise, scheduled] :
         {std::tuple(10, 0.5, 20), std::tuple(3, 0.3, 10), std::tuple(1, 0.01, 100)}) {
      CAPTURE(schedule);
      auto whole = calculate_sigmas(*model, schedule, scheduled);
      auto wanted = Sigmas(whole.end() - steps - 1, whole.end());
      CHECK(ksampler_sigmas(*model, "euler", schedule, steps, denoise) == wanted);
      // One step more for those that leave out the last but one level.
      auto longer = calculate_sigmas(*model, schedule, scheduled + 1);
      longer.erase(longer.end() - 2);
      for (auto sampler : {"dpm_2", "dpm_2_ancestral", "uni_pc", "uni_pc_bh2"})
        CHECK(ksampler_sigmas(*model, sampler, schedule, steps, denoise) ==
              Sigmas(longer.end() - steps - 1, longer.end()));
    }
  CHECK(ksampler_sigmas(*model, "euler", "karras", 4, 0.99995) ==
        calculate_sigmas(*model, "karras", 4));
  CHECK(ksampler_sigmas(*model, "euler", "karras", 4, 0).empty());
  CHECK(ksampler_sigmas(*model, "euler", "karras", 4, -1).empty());
}

TEST_CASE("schedules: a denoise of almost nothing is refused, not reckoned for hours") {
  auto model = discrete_sampling();
  for (double denoise : {1e-6, 1e-9, 1e-300}) {
    CAPTURE(denoise);
    try {
      ksampler_sigmas(*model, "euler", "karras", 20, denoise);
      FAIL("was accepted");
    } catch (const Error& error) {
      CHECK((error.kind() == ErrorKind::Usage));
      CHECK(error.where() == "denoise");
      CHECK(error.sentence().find("makes 20 steps the end of ") != std::string::npos);
    }
  }
}

TEST_CASE("model sampling: levels that are none and shifts of nothing are refused by name") {
  auto refused = [](auto make) -> std::string {
    try {
      make();
    } catch (const Error& error) {
      CHECK((error.kind() == ErrorKind::Usage));
      return error.what();
    }
    return "accepted";
  };
  const double infinite = std::numeric_limits<double>::infinity();
  for (auto [low, high] : {std::pair(0.0, 1.0), std::pair(-1.0, 1.0), std::pair(2.0, 1.0),
                           std::pair(1.0, 1.0), std::pair(1.0, infinite)}) {
    const std::string start = "sigma_min and sigma_max: are ";
    CHECK(refused([&] {
            continuous_edm_sampling(Prediction::Edm, low, high, 1);
          }).starts_with(start));
    CHECK(refused([&] { continuous_v_sampling(low, high); }).starts_with(start));
    CHECK(refused([&] { cosmos_flow_sampling(low, high); }).starts_with(start));
  }
  for (double shift : {0.0, -1.0, infinite}) {
    CHECK(refused([&] { flow_sampling(shift); }).starts_with("shift: is "));
    CHECK(refused([&] { cascade_sampling(shift); }).starts_with("shift: is "));
  }
  CHECK(refused([&] { flow_sampling(1e-3); }) == "accepted");
  CHECK(refused([&] { continuous_v_sampling(1e-3, 2e-3); }) == "accepted");
}
