#pragma once
#include <memory>

#include "distorch/sampling/wan_solver.h"

namespace distorch::sampling {

/// SA-Solver of second order for data prediction: each step corrects the sample by what the model
/// said about it and predicts the next; while the timestep is between 200 and 800 noise is renewed.
/// Source: arXiv:2309.05019; diffusers, SASolverScheduler.
std::unique_ptr<WanSolver> sa_solver(const WanSchedule& schedule);

}  // namespace distorch::sampling
