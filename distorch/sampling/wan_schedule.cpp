#include "distorch/sampling/wan_schedule.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "distorch/base/error.h"
#include "distorch/sampling/schedules.h"

namespace distorch::sampling {
namespace {

using Levels = std::vector<double>;

double shifted(double sigma, double shift) { return shift * sigma / (1 + (shift - 1) * sigma); }

Levels shifted(Levels levels, double shift) {
  for (double& level : levels) {
    level = shifted(level, shift);
  }
  return levels;
}

Levels linspace(double from, double to, std::int64_t count) {
  Levels levels(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const double part = count == 1 ? 0 : static_cast<double>(i) / static_cast<double>(count - 1);
    levels[static_cast<std::size_t>(i)] = from + (to - from) * part;
  }
  return levels;
}

Levels without_last(Levels levels) {
  levels.pop_back();
  return levels;
}

/// Between the first and the last level, at quantiles of Beta(0.6, 0.6).
Levels at_beta_quantiles(const Levels& levels) {
  const std::size_t count = levels.size();
  Levels spread(count);
  for (std::size_t i = 0; i < count; ++i) {
    const double p = count == 1 ? 1 : 1 - static_cast<double>(i) / static_cast<double>(count - 1);
    spread[i] = levels.back() + (levels.front() - levels.back()) * beta_quantile(p, 0.6, 0.6);
  }
  return spread;
}

/// How a solver tells the model where it is.
enum class Clock { Whole, Exact };

/// How a row of the table makes its levels; the 0 behind the last is added afterwards.
struct Rule {
  std::string_view name;
  Clock clock;
  Levels (*levels)(const WanScheduleRequest& request);
  /// Given levels are used as they are, shifted once more, not looked at or refused.
  enum class Given { AsTheyAre, Shifted, Ignored, Refused } given;
  /// The level behind the last.
  double end = 0;
  /// The model is called once more at the level 0, without effect.
  bool calls_at_end = false;
};

Levels multistep_levels(const WanScheduleRequest& r) {
  return shifted(without_last(linspace(shifted(0.999, r.shift), 0, r.steps + 1)), r.shift);
}

Levels euler_levels(const WanScheduleRequest& r) {
  return shifted(linspace(1, shifted(0.001, r.shift), r.steps), r.shift);
}

Levels deis_levels(const WanScheduleRequest& r) {
  return shifted(without_last(linspace(0.999, 0, r.steps + 1)), r.shift);
}

Levels res_levels(const WanScheduleRequest& r) {
  constexpr std::int64_t kTable = 1000;
  const Levels table = linspace(1, 0.003 / 1.002, kTable);
  Levels levels;
  for (std::int64_t i = 0; i < r.steps; ++i) {
    // Halves go to the even neighbour.
    const double at =
        std::nearbyint(static_cast<double>(i) * kTable / static_cast<double>(r.steps));
    levels.push_back(shifted(table[static_cast<std::size_t>(at)], r.shift));
  }
  return levels;
}

Levels causvid_levels(const WanScheduleRequest& r) {
  constexpr std::int64_t kWide = 5120;
  Levels levels = {0.999, 0.934, 0.862, 0.756, 0.603, 0.410, 0.250, 0.140, 0.074};
  if (r.width != kWide) {
    levels = {1, 0.75, 0.5, 0.25};
    if (r.steps != 4) {
      throw Error(ErrorKind::Usage, "steps",
                  fmt::format("the small model was distilled to 4 steps for flowmatch_causvid, not "
                              "to {}",
                              r.steps));
    }
  }
  levels.resize(std::min(levels.size(), static_cast<std::size_t>(r.steps)));
  return levels;
}

Levels distill_levels(const WanScheduleRequest& r) {
  if (r.steps != 4) {
    throw Error(ErrorKind::Usage, "steps",
                fmt::format("flowmatch_distill is for 4 steps, not for {}", r.steps));
  }
  return shifted({0.999, 0.75, 0.5, 0.25}, r.shift);
}

Levels pusa_levels(const WanScheduleRequest& r) {
  return shifted(without_last(linspace(r.denoise, 0, r.steps + 1)), r.shift);
}

Levels sa_ode_levels(const WanScheduleRequest& r) {
  constexpr std::int64_t kFew = 10;
  Levels levels;
  for (std::int64_t i = 0; i < r.steps; ++i) {
    const double part = static_cast<double>(i) / static_cast<double>(r.steps);
    levels.push_back(r.steps <= kFew ? 1 - part : (1 + std::cos(std::numbers::pi * part)) / 2);
  }
  return shifted(levels, r.shift);
}

constexpr std::string_view kBeta = "/beta";

const std::vector<Rule>& rules() {
  using enum Clock;
  using Given = Rule::Given;
  static const std::vector<Rule> rules = {
      {"unipc", Whole, multistep_levels, Given::AsTheyAre},
      {"dpm++", Whole, multistep_levels, Given::AsTheyAre},
      {"dpm++_sde", Whole, multistep_levels, Given::AsTheyAre},
      {"euler", Exact, euler_levels, Given::Shifted},
      {"lcm", Exact, euler_levels, Given::Shifted},
      {"deis", Whole, deis_levels, Given::Ignored, 1e-6},
      {"res_multistep", Exact, res_levels, Given::Shifted, 0, true},
      {"flowmatch_causvid", Whole, causvid_levels, Given::Refused},
      {"flowmatch_distill", Exact, distill_levels, Given::Refused},
      {"flowmatch_pusa", Exact, pusa_levels, Given::Shifted},
      {"sa_ode_stable", Exact, sa_ode_levels, Given::Refused},
  };
  return rules;
}

const Rule& rule_of(std::string_view scheduler) {
  std::string_view name = scheduler;
  if (name.ends_with(kBeta)) {
    name.remove_suffix(kBeta.size());
  }
  const auto& names = wan_schedulers();
  if (scheduler == "multitalk") {
    throw Error(ErrorKind::Usage, "scheduler",
                "\"multitalk\" belongs to MultiTalk's own loop, which there is none of here");
  }
  if (std::find(names.begin(), names.end(), scheduler) == names.end()) {
    throw Error(ErrorKind::Usage, "scheduler",
                fmt::format("\"{}\" is none of {}", scheduler, fmt::join(names, ", ")));
  }
  return *std::find_if(rules().begin(), rules().end(),
                       [&](const Rule& rule) { return rule.name == name; });
}

Levels given_levels(const WanScheduleRequest& request, const Rule& rule) {
  const Sigmas& given = *request.given;
  if (rule.given == Rule::Given::Refused) {
    throw Error(
        ErrorKind::Usage, "sigmas",
        fmt::format("{} has noise levels of its own and takes no others", request.scheduler));
  }
  if (given.size() < 2) {
    throw Error(ErrorKind::Usage, "sigmas",
                fmt::format("{} levels make no step: two or more are needed", given.size()));
  }
  const Levels levels(given.begin(), given.end() - 1);
  return rule.given == Rule::Given::Shifted ? shifted(levels, request.shift) : levels;
}

float timestep_of(double sigma, Clock clock) {
  constexpr double kTimesteps = 1000;
  return static_cast<float>(clock == Clock::Whole ? std::trunc(kTimesteps * sigma)
                                                  : kTimesteps * sigma);
}

/// Levels that a workflow brings are float32, and so is their product with 1000: 0.7 is 700, not
/// 699.
float timestep_of_given(double sigma, Clock clock) {
  const float product = static_cast<float>(sigma) * 1000.0F;
  return clock == Clock::Whole ? std::trunc(product) : product;
}

}  // namespace

const std::vector<std::string>& wan_schedulers() {
  static const std::vector<std::string> names = {"unipc",
                                                 "unipc/beta",
                                                 "dpm++",
                                                 "dpm++/beta",
                                                 "dpm++_sde",
                                                 "dpm++_sde/beta",
                                                 "euler",
                                                 "euler/beta",
                                                 "deis",
                                                 "lcm",
                                                 "lcm/beta",
                                                 "res_multistep",
                                                 "flowmatch_causvid",
                                                 "flowmatch_distill",
                                                 "flowmatch_pusa",
                                                 "multitalk",
                                                 "sa_ode_stable"};
  return names;
}

WanSchedule wan_schedule(const WanScheduleRequest& request) {
  const Rule& rule = rule_of(request.scheduler);
  if (request.steps < 1) {
    throw Error(ErrorKind::Usage, "steps",
                fmt::format("{} steps make no video: one or more are needed", request.steps));
  }
  const bool given = request.given && rule.given != Rule::Given::Ignored;
  Levels levels = given ? given_levels(request, rule) : rule.levels(request);
  // Given levels of the multistep solvers stay as they are under "/beta" too.
  const bool spread =
      request.scheduler.ends_with(kBeta) && !(given && rule.given == Rule::Given::AsTheyAre);
  if (spread) {
    levels = at_beta_quantiles(levels);
  }
  WanSchedule schedule{request.scheduler, {}, {}, request.steps};
  for (double level : levels) {
    schedule.sigmas.push_back(static_cast<float>(level));
    schedule.timesteps.push_back(given ? timestep_of_given(level, rule.clock)
                                       : timestep_of(level, rule.clock));
  }
  schedule.sigmas.push_back(given && rule.given == Rule::Given::AsTheyAre
                                ? request.given->back()
                                : static_cast<float>(rule.end));
  if (rule.calls_at_end && !given) {
    schedule.timesteps.push_back(0);
    schedule.sigmas.push_back(0);
  }
  return schedule;
}

WanSchedule WanSchedule::slice(const WanSlice& slice) const {
  const auto count = static_cast<std::int64_t>(timesteps.size());
  const std::int64_t end = slice.end < 0 ? count : std::min(slice.end, count);
  if (slice.start < 0 || slice.start >= end) {
    throw Error(ErrorKind::Usage, "start_step",
                fmt::format("no step lies between start_step {} and end_step {} of {} steps",
                            slice.start, slice.end, count));
  }
  WanSchedule part{scheduler, {}, {}, steps};
  part.timesteps.assign(timesteps.begin() + slice.start, timesteps.begin() + end);
  part.sigmas.assign(sigmas.begin() + slice.start, sigmas.begin() + end + 1);
  return part;
}

std::int64_t WanSchedule::step_of_level(double level) const {
  const auto found = std::find_if(sigmas.begin(), sigmas.end() - 1,
                                  [&](float sigma) { return sigma <= static_cast<float>(level); });
  return found - sigmas.begin();
}

}  // namespace distorch::sampling
