// The HunyuanVideoWrapper's noise levels and solvers; runs of whole videos are compared with the
// pack's in tests/nodes/hyvideo_wrapper_test.cpp.
#include "distorch/sampling/hunyuan_schedule.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"

using namespace distorch;
using namespace distorch::sampling;

TEST_CASE("hunyuan schedules: levels and timesteps of every scheduler") {
  const auto flow = hunyuan_schedule("FlowMatchDiscreteScheduler", 4, 9.0);
  CHECK(flow.timesteps[1] == doctest::Approx(964.2857));
  CHECK(flow.sigmas.back() == 0);
  for (const auto& name : hunyuan_schedulers()) {
    const auto schedule = hunyuan_schedule(name, 4, 9.0);
    REQUIRE(schedule.timesteps.size() == 4);
    REQUIRE(schedule.sigmas.size() == 5);
    if (name == "FlowMatchDiscreteScheduler") continue;
    CHECK(schedule.timesteps == std::vector<float>{999, 964, 899, 749});
    CHECK(schedule.sigmas.back() == (name == "SASolverScheduler" ? schedule.sigmas[3] : 0.0F));
  }
  CHECK_THROWS_WITH_AS(hunyuan_schedule("Euler", 4, 9.0), doctest::Contains("is none of FlowMatch"),
                       Error);
  CHECK_THROWS_WITH_AS(hunyuan_schedule("UniPCMultistepScheduler", 0, 9.0),
                       doctest::Contains("make no video"), Error);
}

TEST_CASE("hunyuan solvers: a model that knows the video leads every one of them to it") {
  auto generator = at::detail::createCPUGenerator(3);
  const auto video = at::randn({1, 16, 2, 4, 4}, generator, at::TensorOptions(at::kFloat));
  for (const auto& name : hunyuan_schedulers()) {
    INFO(name);
    const auto schedule = hunyuan_schedule(name, 12, 5.0);
    auto solver = hunyuan_solver(schedule);
    auto x = at::randn(video.sizes(), generator, at::TensorOptions(at::kFloat));
    for (std::size_t i = 0; i < schedule.timesteps.size(); ++i)
      x = solver->step(x, (x - video) / schedule.sigmas[i], i, generator);
    const double left = schedule.sigmas.back();
    // What is not denoised yet has as much of the video and of noise as its level says.
    const auto noise = (x - video * (1 - left)).abs().mean().item<double>();
    CHECK(noise < 1e-4 + 1.2 * left);
    if (left > 0) CHECK(noise > 0.4 * left);
  }
}
