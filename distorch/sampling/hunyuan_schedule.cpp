#include "distorch/sampling/hunyuan_schedule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/sampling/sa_solver.h"

namespace distorch::sampling {
namespace {

constexpr const char* kFlow = "FlowMatchDiscreteScheduler";
constexpr const char* kSa = "SASolverScheduler";
constexpr float kTimesteps = 1000;

/// Those that Wan's sampler has too, under its names.
constexpr std::array<std::pair<std::string_view, const char*>, 4> kShared = {{
    {kFlow, "euler"},
    {"SDE-DPMSolverMultistepScheduler", "dpm++_sde"},
    {"DPMSolverMultistepScheduler", "dpm++"},
    {"UniPCMultistepScheduler", "unipc"},
}};

template <class T>
T shifted(T sigma, T shift) {
  return shift * sigma / (1 + (shift - 1) * sigma);
}

/// From 1 to 0, all in float32.
void add_flow_levels(WanSchedule& schedule, double shift) {
  const auto steps = static_cast<float>(schedule.steps);
  for (std::int64_t i = 0; i <= schedule.steps; ++i)
    schedule.sigmas.push_back(
        shifted(1 - static_cast<float>(i) / steps, static_cast<float>(shift)));
  for (std::int64_t i = 0; i < schedule.steps; ++i)
    schedule.timesteps.push_back(kTimesteps * schedule.sigmas[static_cast<std::size_t>(i)]);
}

/// From nearly 1 down, the last one above 0; what comes behind it is the solver's.
void add_multistep_levels(WanSchedule& schedule, double shift) {
  constexpr double highest = 0.999;
  for (std::int64_t i = 0; i < schedule.steps; ++i) {
    const double part =
        static_cast<double>(schedule.steps - i) / static_cast<double>(schedule.steps);
    const double sigma = shifted(highest * part, shift);
    schedule.sigmas.push_back(static_cast<float>(sigma));
    schedule.timesteps.push_back(static_cast<float>(std::trunc(sigma * double{kTimesteps})));
  }
  schedule.sigmas.push_back(schedule.scheduler == kSa ? schedule.sigmas.back() : 0.F);
}

}  // namespace

const std::vector<std::string>& hunyuan_schedulers() {
  static const std::vector<std::string> names = {kFlow, "SDE-DPMSolverMultistepScheduler",
                                                 "DPMSolverMultistepScheduler", kSa,
                                                 "UniPCMultistepScheduler"};
  return names;
}

WanSchedule hunyuan_schedule(const std::string& scheduler, std::int64_t steps, double shift) {
  const auto& names = hunyuan_schedulers();
  if (std::ranges::find(names, scheduler) == names.end())
    throw Error(ErrorKind::Usage, "scheduler",
                fmt::format("\"{}\" is none of {}", scheduler, fmt::join(names, ", ")));
  if (steps < 1)
    throw Error(ErrorKind::Usage, "steps",
                fmt::format("{} steps make no video: one or more are needed", steps));
  WanSchedule schedule{scheduler, {}, {}, steps};
  if (scheduler == kFlow)
    add_flow_levels(schedule, shift);
  else
    add_multistep_levels(schedule, shift);
  return schedule;
}

std::unique_ptr<WanSolver> hunyuan_solver(const WanSchedule& schedule) {
  if (schedule.scheduler == kSa) return sa_solver(schedule);
  auto shared = schedule;
  for (const auto& [name, wan] : kShared)
    if (name == schedule.scheduler) shared.scheduler = wan;
  return wan_solver(shared);
}

}  // namespace distorch::sampling
