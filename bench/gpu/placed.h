#pragma once
#include "bench/gpu/harness.h"
#include "distorch/placement/plan.h"
#include "distorch/streaming/profile.h"
#include "distorch/streaming/streamed_model.h"

// One model under one placement on one accelerator: planned, loaded, timed, compared with its plan.
namespace distorch::bench {

struct Link {
  double bytes_per_s = 0, latency_s = 0;
};

/// Copies from the mapping of the model's file, registered for it, as its ring makes them.
Link measure_link(streaming::StreamedModel& model, c10::Device device);

/// The accelerator with that budget, and a donor behind the link: RAM or another accelerator.
placement::System machine(const std::string& device, std::int64_t budget_bytes, const Link& link,
                          const std::string& donor = "cpu");
/// Most of the device.
std::int64_t roomy_budget(const std::string& device);

/// The model as planners see it (`profile`: host_bound() unless the step is recorded);
/// `library_bytes` is what cuBLAS and others hold on the device.
placement::Model describe(streaming::StreamedModel& model, const streaming::Profile& profile,
                          std::int64_t library_bytes);
/// `share` (0..1) of the weights moved to the donor, as a DisTorch2 loader would be asked for.
placement::Placement offload(const placement::System& system, const placement::Model& model,
                             double share);
void load(streaming::StreamedModel& model, const placement::System& system,
          const placement::Placement& placement);

/// A step to be measured under placements.
struct Case {
  std::string name;   // "512 px, 50 % offloaded"
  double resident_s;  // of the same step with everything resident
  std::string bits;   // fingerprint of its result
  Rounds rounds;
  std::function<at::Tensor()> step;
  /// When the resident step is timed again before and after, and beside copies.
  enum class Compares { Never, WhereItIsTheBound, Always };
  Compares compares = Compares::WhereItIsTheBound;
};

/// Loads, checks the result's bits, times the step, and adds to the results: step over its bound,
/// predicted over measured step, predicted over measured peak memory. The link is measured by turns
/// with the step, on the bytes that stream; where the bound is the resident step (Case::compares),
/// that is timed again before and after, and once more while the link is busy with other copies:
/// what sharing the device's memory and power costs, whoever does it. Returns seconds of a step.
double measure(const Case& subject, streaming::StreamedModel& model,
               const placement::System& system, const placement::Model& described,
               const placement::Placement& placement, Results& results);

/// Fingerprint of a step's result. Error(Internal) where it is zero or not finite.
std::string result_bits(const std::string& name, const at::Tensor& result);

}  // namespace distorch::bench
