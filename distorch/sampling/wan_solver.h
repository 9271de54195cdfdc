#pragma once
#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <memory>

#include "distorch/sampling/wan_schedule.h"

namespace distorch::sampling {

/// sa_ode_stable's numbers. Source: ComfyUI-WanVideoWrapper, WanVideoSchedulerSA_ODE.
struct SaOdeOptions {
  /// The order follows the noise level; else it is 3 as soon as there are three velocities.
  bool adaptive_order = true;
  bool smooth = true;
  /// Below this level velocities are smoothed and steps shortened.
  double threshold = 0.15;
  /// How much of the velocity before stays in the next.
  double smoothing = 0.8;
};

/// One run of a solver over a schedule: it keeps what it needs of the steps before. A slice of a
/// schedule is a run of its own, without history.
class WanSolver {
 public:
  virtual ~WanSolver() = default;
  /// The latent after step `i`, which goes up from 0; x, velocity: float32 of one shape, on any
  /// device. Stochastic solvers draw one latent's worth of noise a step from `generator`, which is
  /// the CPU's: a seed means the same video on every device.
  virtual at::Tensor step(const at::Tensor& x, const at::Tensor& velocity, std::size_t i,
                          at::Generator& generator) = 0;
};

/// The solver that the schedule's name stands for. Source: ComfyUI-WanVideoWrapper,
/// wanvideo/schedulers; UniPC (arXiv:2302.04867), DPM-Solver++ (arXiv:2211.01095), DEIS
/// (arXiv:2204.13902).
std::unique_ptr<WanSolver> wan_solver(const WanSchedule& schedule, const SaOdeOptions& sa_ode = {});

}  // namespace distorch::sampling
