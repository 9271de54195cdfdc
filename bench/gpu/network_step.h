#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "bench/gpu/calibration.h"
#include "bench/gpu/harness.h"
#include "distorch/models/catalog.h"
#include "distorch/streaming/streamed_model.h"

// A step of a diffusion network at full size, as peer_network.py describes it.
namespace distorch::bench {

struct Step {
  std::string name;  // "512"
  models::Inputs input;
  at::Tensor wanted;
  double issued_s = 0;    // every block resident, operation by operation
  double resident_s = 0;  // the same, recorded
  std::string bits;
};

weights::Checkpoint open(const std::filesystem::path& path);

/// The inputs of case_NAME.safetensors in `folder`, on the device. Where there is none, those of 1024
/// with a latent as large as `name` says.
Step read_step(const std::filesystem::path& folder, const std::string& name, c10::Device device);

/// The same input as shapes on another device.
models::Inputs shapes_of(const models::Inputs& input, c10::Device device);

/// A step as users' steps run: recorded where that is allowed.
at::Tensor step_of(streaming::StreamedModel& model, models::Network& network,
                   const models::Inputs& input);

/// Host seconds to issue a run, the device idle before: the median of a few.
double issue_seconds(c10::Device device, const std::function<void()>& forward);

/// Blocks and steps of the resident model as the fit wants them.
std::vector<streaming::StepTarget> measure_targets(streaming::StreamedModel& model,
                                                   const models::Family& family,
                                                   models::Network& network, c10::Device device,
                                                   const std::string& label,
                                                   const std::vector<Step>& steps);

}  // namespace distorch::bench
