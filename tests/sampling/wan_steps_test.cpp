#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/sampling/wan_schedule.h"
#include "distorch/sampling/wan_solver.h"
#include "tests/support/dump.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

namespace {

const nlohmann::json& table() {
  static const auto table = nlohmann::json::parse(slurp(parity_dir() / "wan_wrapper_steps.json"));
  return table;
}

WanScheduleRequest request_of(const nlohmann::json& row) {
  WanScheduleRequest request;
  request.scheduler = row.at("scheduler").get<std::string>();
  request.steps = row.value("steps", 4);
  request.shift = row.value("shift", table().at("shift").get<double>());
  if (row.contains("model_width") && row["model_width"].is_number()) {
    request.width = row["model_width"].get<std::int64_t>();
  }
  if (row.contains("input_sigmas")) {
    request.given = row["input_sigmas"].get<Sigmas>();
  }
  return request;
}

WanSlice slice_of(const nlohmann::json& row) {
  return {row.value("start_step", 0), row.value("end_step", -1)};
}

void check_equal(const WanSchedule& schedule, const nlohmann::json& row) {
  const auto sigmas = row.at("sigmas").get<Sigmas>();
  const auto timesteps = row.at("timesteps").get<std::vector<float>>();
  REQUIRE(schedule.timesteps.size() == timesteps.size());
  REQUIRE(schedule.sigmas.size() == timesteps.size() + 1);
  // The reference's list leaves out what is 0 for some solvers.
  REQUIRE(schedule.sigmas.size() >= sigmas.size());
  for (std::size_t i = 0; i < sigmas.size(); ++i) {
    CHECK(std::abs(schedule.sigmas[i] - sigmas[i]) <= 1e-6);
  }
  for (std::size_t i = sigmas.size(); i < schedule.sigmas.size(); ++i) {
    CHECK(schedule.sigmas[i] == 0);
  }
  for (std::size_t i = 0; i < timesteps.size(); ++i) {
    CHECK(std::abs(schedule.timesteps[i] - timesteps[i]) <= 1e-6 * 1000);
  }
}

/// The closed form that stands for a model in the record.
at::Tensor velocity(const at::Tensor& x, float timestep) {
  return x * 0.6 - at::cos(x * 2) * 0.3 + (0.0004 * timestep - 0.1);
}

at::Tensor state_of(const nlohmann::json& numbers) {
  return at::tensor(numbers.get<std::vector<float>>()).view({1, 2, 1, 2, 2});
}

std::vector<at::Tensor> run(const WanSchedule& schedule, at::Tensor x, std::uint64_t seed) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto solver = wan_solver(schedule);
  std::vector<at::Tensor> states;
  for (std::size_t i = 0; i < schedule.timesteps.size(); ++i) {
    x = solver->step(x, velocity(x, schedule.timesteps[i]), i, generator);
    states.push_back(x);
  }
  return states;
}

}  // namespace

TEST_CASE("wan schedules: whole runs, slices and given levels are the wrapper's within 1e-6") {
  for (const char* part : {"cases", "partial", "custom_sigmas"}) {
    for (const auto& row : table().at(part)) {
      CAPTURE(part);
      CAPTURE(row.dump());
      if (row.contains("error")) {
        WanScheduleRequest request = request_of(row);
        if (std::string_view(part) == "custom_sigmas") {
          request.given = Sigmas{1, 0.9f, 0.7f, 0.4f, 0};
        }
        CHECK_THROWS_AS(wan_schedule(request), Error);
        continue;
      }
      check_equal(wan_schedule(request_of(row)).slice(slice_of(row)), row);
    }
  }
}

TEST_CASE("wan solvers: the latent after first, middle and last step is the wrapper's") {
  int compared = 0;
  for (const auto& row : table().at("trajectories")) {
    if (row.contains("error")) {
      continue;
    }
    CAPTURE(row.at("scheduler").get<std::string>());
    CAPTURE(row.at("steps").get<int>());
    const WanSchedule schedule = wan_schedule(request_of(row)).slice(slice_of(row));
    const std::uint64_t seed = row["seed"].is_null() ? 0 : row["seed"].get<std::uint64_t>();
    const auto states = run(schedule, state_of(row.at("x_initial")), seed);
    // The reference's own deis loses digits in float32 where alpha is 0.0002 at the first level.
    const double tolerance = schedule.scheduler == "deis" ? 5e-4 : 1e-5;
    for (const auto& [at, numbers] : row.at("states").items()) {
      CAPTURE(at);
      const at::Tensor expected = state_of(numbers);
      const double difference = (states.at(std::stoul(at)) - expected).abs().max().item<double>() /
                                expected.abs().max().item<double>();
      CHECK(difference < tolerance);
    }
    ++compared;
  }
  CHECK(compared >= 36);
}

TEST_CASE("wan solvers: a slice has no history, and noise goes on where the generator stands") {
  const WanSchedule whole = wan_schedule({.scheduler = "lcm", .steps = 6, .shift = 8});
  const at::Tensor x = at::linspace(-1, 1, 8).view({1, 2, 1, 2, 2});
  const auto states = run(whole, x, 3);
  at::Generator generator = at::detail::createCPUGenerator(3);
  const WanSchedule first = whole.slice({0, 3}), second = whole.slice({3, -1});
  at::Tensor now = x;
  for (const WanSchedule& part : {first, second}) {
    const auto solver = wan_solver(part);
    for (std::size_t i = 0; i < part.timesteps.size(); ++i) {
      now = solver->step(now, velocity(now, part.timesteps[i]), i, generator);
    }
  }
  CHECK(at::equal(now, states.back()));
  CHECK(whole.step_of_level(0.9) == 3);
  CHECK(whole.step_of_level(2.0) == 0);
}

TEST_CASE("wan schedules: what makes no run is said") {
  const auto message = [](const WanScheduleRequest& request) {
    try {
      wan_schedule(request);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(message({.scheduler = "uni_pc"}).find("\"uni_pc\" is none of unipc, ") !=
        std::string::npos);
  CHECK(message({.scheduler = "multitalk"}).find("MultiTalk") != std::string::npos);
  CHECK(message({.scheduler = "euler", .steps = 0}).find("steps: 0 steps") == 0);
  CHECK(message({.scheduler = "euler", .given = Sigmas{1}}).find("sigmas: 1 levels") == 0);
  CHECK_THROWS_AS(wan_schedule({.steps = 4}).slice({4, -1}), Error);
  CHECK_THROWS_AS(wan_schedule({.steps = 4}).slice({2, 2}), Error);
  CHECK_THROWS_AS(wan_schedule({.steps = 4}).slice({-1, 2}), Error);
  CHECK(wan_schedule({.steps = 4}).slice({1, 99}).timesteps.size() == 3);
}

TEST_CASE("wan solvers: sa_ode_stable follows its options") {
  const WanSchedule schedule = wan_schedule({.scheduler = "sa_ode_stable", .steps = 20});
  const at::Tensor start = at::linspace(-1, 1, 8).view({1, 2, 1, 2, 2});
  const auto last = [&](const SaOdeOptions& options) {
    at::Generator generator = at::detail::createCPUGenerator(0);
    const auto solver = wan_solver(schedule, options);
    at::Tensor x = start;
    for (std::size_t i = 0; i < schedule.timesteps.size(); ++i) {
      x = solver->step(x, velocity(x, schedule.timesteps[i]), i, generator);
    }
    return x;
  };
  const at::Tensor usual = last({});
  CHECK_FALSE(at::equal(usual, last({.adaptive_order = false})));
  CHECK_FALSE(at::equal(usual, last({.smooth = false})));
  CHECK_FALSE(at::equal(usual, last({.threshold = 0.5})));
  CHECK_FALSE(at::equal(usual, last({.smoothing = 0.2})));
}
