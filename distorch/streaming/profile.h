#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "distorch/base/rig.h"
#include "distorch/streaming/streamed_model.h"

namespace distorch::streaming {

/// What one run of a model costs on a device, block by block, by the simulator's cost model.
/// Seconds are the device's own: what its operations take when the host has issued them in time.
struct Profile {
  std::vector<double> seconds;   // per block: one run's compute; 0 for blocks that did not run
  std::vector<double> unpack_s;  // per block: see placement::Block
  double restart_s = 0;          // the same
  std::vector<double> flops;     // per block
  std::vector<std::int64_t> activation_bytes;  // per block: inputs that would cross a link
  std::vector<bool> used;                      // whether the block ran at all
  // per block: it did not, and whoever runs it does so within StreamedModel::aside(); empty: none
  std::vector<bool> idle;
  std::int64_t peak_activation_bytes = 0;  // highest memory beside weights
  double total_s = 0;
  std::int64_t operations = 0;
  double issue_s = 0;      // host time to issue them, operations * RigDevice::issue_s
  bool late_host = false;  // host_bound() has found that it is the limit
};

/// The blocks that did not run are idle from now on: what is known of them is in `used`.
void leave_idle(Profile& profile);

/// The profile of a run whose operations the host issues one by one: where it needs longer for that
/// than the device for the work, seconds of all blocks grow alike until the run takes issue_s. Not
/// for a run that is issued as a whole (a recorded graph).
Profile host_bound(Profile profile);

/// Whether a step should be recorded: where the host, which needs `issue_s` to issue its operations
/// and more for copies, may hold it up or leave gaps between operations. On an H200 recorded steps
/// of SD 1.5 are 1 to 2 % shorter where the host is quick enough, and down to half as long where it
/// is not. The price is memory: a recording keeps that of the activations.
bool recording_pays(double issue_s, double step_s);
/// The same of a step that streams: whether to record it and see (StepRecorder::compare).
bool recording_may_pay(double issue_s, double step_s);

/// Runs `forward` dry (shapes only) on a simulated device with the speeds of `compute`: nothing is
/// computed, read or stored, so it takes milliseconds, and where the model's weights rest now does
/// not matter. Weights are seen as they will rest (StreamedModel::rests_converted), with the LoRAs
/// that are set. `fresh` is the manifest of a network made like the model's for this alone, so that
/// the model may run meanwhile; afterwards it is good for nothing else. `forward` gets the device to
/// make its inputs on (at::empty will do) and calls that network as a real run would.
Profile profile_model(const StreamedModel& model, weights::Manifest& fresh,
                      const RigDevice& compute, const std::function<void(at::Device)>& forward);

/// The operations of one run in order of execution.
struct RunOperations {
  std::vector<std::vector<KernelWork>> blocks;  // per block; empty for blocks that did not run
  std::vector<KernelWork> outside;              // between blocks
};
/// From a dry run like profile_model's, on a device with the plain cost rule.
RunOperations operations_of(const StreamedModel& model, weights::Manifest& fresh,
                            const std::function<void(at::Device)>& forward);

}  // namespace distorch::streaming
