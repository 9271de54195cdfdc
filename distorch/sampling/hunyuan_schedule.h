#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "distorch/sampling/wan_solver.h"

/// Noise levels and solvers as the HunyuanVideoWrapper's sampler has them. Source:
/// ComfyUI-HunyuanVideoWrapper (May 2025), hyvideo/diffusion/schedulers.
namespace distorch::sampling {

/// The names of the sampler's list, in its order.
const std::vector<std::string>& hunyuan_schedulers();

/// Levels and timesteps of the whole run: exact ones of FlowMatchDiscreteScheduler, whole numbers of
/// all others. Error(Usage) where the name is unknown or there is no step.
WanSchedule hunyuan_schedule(const std::string& scheduler, std::int64_t steps, double shift);

/// The solver of a schedule, whole or a slice of it.
std::unique_ptr<WanSolver> hunyuan_solver(const WanSchedule& schedule);

}  // namespace distorch::sampling
