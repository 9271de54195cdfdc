#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "distorch/base/rig.h"
#include "distorch/streaming/profile.h"

// Fitting a RigDevice to measured times. Pure arithmetic: nothing runs on a device.
namespace distorch::streaming {

/// An operation that a block or a step makes `count` times.
struct CountedKernel {
  KernelWork work;
  double count = 1;
  bool operator==(const CountedKernel&) const = default;
};
/// Equal operations become one.
std::vector<CountedKernel> count_kernels(const std::vector<KernelWork>& operations);

/// Measured device time of blocks that make the same operations.
struct BlockTarget {
  std::string name;  // of the first
  double count = 1;
  double seconds = 0;  // of one, the mean
  std::vector<CountedKernel> kernels;
};

/// A measured run of a model.
struct StepTarget {
  std::string name;
  double seconds = 0;  // the device's, of the whole run
  std::vector<BlockTarget> blocks;
  std::vector<CountedKernel> outside;  // operations between blocks
};

/// Device seconds of one run, block by block (0 for one that did not run) and between blocks.
struct RunTimes {
  std::vector<double> blocks;
  double outside_s = 0;
};
/// `times` are scaled to add up to `seconds`: measured apart, blocks run at other clocks than in a
/// row, so what they say is their share of the step.
StepTarget make_target(const std::string& name, double seconds, const RunOperations& operations,
                       const RunTimes& times, const std::vector<std::string>& block_names);

double seconds_of(const RigDevice& device, const std::vector<CountedKernel>& kernels);
double predict(const RigDevice& device, const StepTarget& step);

struct FitError {
  double steps = 0;   // largest |predicted / measured - 1| of a step
  double blocks = 0;  // root mean square of the blocks' errors, weighted by their share of the step
};
FitError error_of(const RigDevice& device, const std::vector<StepTarget>& steps);

/// Fits `device.kernels` (bounds: compute 0.05 to 1.3, memory 0.05 to 2, start 0 to 40 us,
/// half_depth 0 to 1000) to steps and their blocks; steps count most. tflops, memory_bytes_per_s
/// and the rest stay as given: measure them first. Starts from typical_kernels(), and what the
/// targets say nothing about stays near them. Error(Usage) without a target, or with a step whose
/// time is not above 0.
FitError calibrate(RigDevice& device, const std::vector<StepTarget>& steps);

/// For files; kernels are lists [kind, dtype, bytes, flops, depth, count].
nlohmann::json to_json(const std::vector<StepTarget>& steps);
/// Error(Format) naming `where` and what was expected.
std::vector<StepTarget> targets_from_json(const nlohmann::json& json, const std::string& where);

}  // namespace distorch::streaming
