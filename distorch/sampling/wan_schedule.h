#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/sampling/model_sampling.h"

/// Noise levels as the WanVideoWrapper's sampler makes them: not those of KSampler, and each solver
/// has its own. Source: ComfyUI-WanVideoWrapper (October 2025), wanvideo/schedulers/__init__.py.
namespace distorch::sampling {

/// Which steps of a run are taken: from `start` to before `end`; -1: to the last.
struct WanSlice {
  std::int64_t start = 0;
  std::int64_t end = -1;
};

struct WanScheduleRequest {
  /// One of wan_schedulers().
  std::string scheduler = "unipc";
  std::int64_t steps = 30;
  double shift = 5.0;
  /// flowmatch_pusa begins at this level.
  double denoise = 1.0;
  /// The network's width: the levels of flowmatch_causvid are those of the model distilled.
  std::int64_t width = 5120;
  /// Levels that a workflow brings along, `steps` + 1 of them, in place of the solver's own. Some
  /// solvers use them as they are, others shift them once more, as the reference does.
  std::optional<Sigmas> given;
};

struct WanSchedule {
  std::string scheduler;
  /// One more than `timesteps`: the level before each call and the one behind the last.
  Sigmas sigmas;
  /// What the model is told at each call, 0 to 1000: whole numbers for some solvers.
  std::vector<float> timesteps;
  /// Steps of the whole run: a slice keeps it.
  std::int64_t steps = 0;

  /// Only these steps. Error(Usage) where none is left.
  WanSchedule slice(const WanSlice& slice) const;
  /// The first step whose level is at most `level`: what a threshold in place of a step means.
  std::int64_t step_of_level(double level) const;
};

/// The names of the sampler's list, in its order.
const std::vector<std::string>& wan_schedulers();

/// Levels and timesteps of the whole run. Error(Usage) where the name is unknown, the number of
/// steps is one that the solver was not distilled for, or given levels do not fit.
WanSchedule wan_schedule(const WanScheduleRequest& request);

}  // namespace distorch::sampling
