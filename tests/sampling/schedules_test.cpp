#include "distorch/sampling/schedules.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "tests/support/dump.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

TEST_CASE(
    "schedules: the reference's noise levels for every scheduler, model, step count and denoise") {
  const Dump dump = load_dump("sigmas");
  const std::map<std::string, std::shared_ptr<const ModelSampling>> models = {
      {"eps", discrete_sampling()},
      {"v", discrete_sampling({.prediction = Prediction::V})},
      {"flow_shift3", flow_sampling(3.0)},
      {"flux_shift1.15", flux_sampling(1.15)}};
  int compared = 0;
  for (const auto& [name, model] : models) {
    for (const std::string& schedule : schedule_names()) {
      for (int steps : {1, 4, 20, 30}) {
        for (const char* denoise : {"1.0", "0.5"}) {
          for (const char* sampler : {"euler", "uni_pc"}) {
            const std::string key =
                name + "/" + schedule + "/" + std::to_string(steps) + "/" + denoise + "/" + sampler;
            const auto wanted = dump.find(key);
            if (wanted == dump.end() || !at::isfinite(wanted->second).all().item().toBool()) {
              continue;  // the reference divides by zero: kl_optimal with one step
            }
            CAPTURE(key);
            const Sigmas got =
                ksampler_sigmas(*model, sampler, schedule, steps, std::stod(denoise));
            CHECK(relative_error(at::tensor(got, at::kFloat), wanted->second) < 1e-6);
            CHECK(at::allclose(at::tensor(got, at::kFloat), wanted->second, 1e-5, 1e-7));
            ++compared;
          }
        }
      }
    }
  }
  CHECK(compared > 420);
}

TEST_CASE("schedules: levels never rise, start at the top and end at 0") {
  auto model = discrete_sampling();
  for (const std::string& name : schedule_names()) {
    CAPTURE(name);
    for (int steps : {1, 2, 3, 7, 50, 999}) {
      CAPTURE(steps);
      const Sigmas sigmas = calculate_sigmas(*model, name, steps);
      REQUIRE(sigmas.size() >= 2);
      CHECK(sigmas.back() == 0);
      if (name != "ddim_uniform") {  // counts from the bottom: few steps start far below the top
        CHECK(sigmas.front() > 0.5f * model->sigma_max());
      }
      for (std::size_t i = 1; i < sigmas.size(); ++i) {
        CHECK(sigmas[i] <= sigmas[i - 1]);
      }
    }
  }
}

TEST_CASE("schedules: unknown names and step counts are refused with what would do") {
  auto model = discrete_sampling();
  CHECK_THROWS_WITH_AS(calculate_sigmas(*model, "karas", 4), doctest::Contains("exponential"),
                       Error);
  CHECK_THROWS_AS(calculate_sigmas(*model, "normal", 0), Error);
  CHECK(ksampler_sigmas(*model, "euler", "normal", 20, 0.0).empty());
}

TEST_CASE("beta quantile: against values of scipy.stats.beta.ppf") {
  CHECK(beta_quantile(0.95, 0.6, 0.6) == doctest::Approx(0.9874455431263885).epsilon(1e-12));
  CHECK(beta_quantile(0.5, 0.6, 0.6) == doctest::Approx(0.5).epsilon(1e-12));
  CHECK(beta_quantile(0.3, 2.0, 5.0) == doctest::Approx(0.18180347131894917).epsilon(1e-12));
  CHECK(beta_quantile(1.0, 0.6, 0.6) == 1.0);
  CHECK(beta_quantile(0.0, 0.6, 0.6) == 0.0);
}
