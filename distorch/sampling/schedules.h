#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "distorch/sampling/model_sampling.h"

namespace distorch::sampling {

/// `steps` + 1 noise levels (some schedules give fewer or more), highest first.
using ScheduleFunction = Sigmas (*)(const ModelSampling& model, int steps);

struct Schedule {
  std::string_view name;
  ScheduleFunction make;
};

/// Every scheduler of ComfyUI's KSampler list, in its order.
const std::vector<Schedule>& schedules();
std::vector<std::string> schedule_names();

/// Error(Usage) that names the list where `name` is none of them; steps >= 1.
Sigmas calculate_sigmas(const ModelSampling& model, std::string_view schedule, int steps);

/// The noise levels of a KSampler run. denoise < 1: the last `steps` steps of a schedule of
/// steps/denoise; denoise <= 0: none. Samplers that spend two evaluations a step on a schedule's
/// last levels (discards_penultimate_sigma) get one step more without its last but one level.
/// Source: ComfyUI comfy/samplers.py, KSampler.set_steps.
Sigmas ksampler_sigmas(const ModelSampling& model, std::string_view sampler,
                       std::string_view schedule, int steps, double denoise);
bool discards_penultimate_sigma(std::string_view sampler);

/// The x in [0, 1] below which a Beta(a, b) variable lies with probability p.
double beta_quantile(double p, double a, double b);

}  // namespace distorch::sampling
