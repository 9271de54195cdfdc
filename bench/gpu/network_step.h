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
  std::string name;  // "512", "832x480x81"
  models::Inputs input;
  at::Tensor wanted;
  double issued_s = 0;    // every block resident, operation by operation
  double resident_s = 0;  // the same, recorded
  std::string bits;

  /// Where a whole list of measurements takes minutes, each of them is kept short.
  bool is_long() const { return resident_s > 2; }
  /// "512 px", "832x480x81": what results call the size.
  std::string size() const;
};

weights::Checkpoint open(const std::filesystem::path& path);

/// The inputs of case_NAME.safetensors in `folder`, on the device. Where there is none, those of the
/// last size in peer.json with a latent as large as `name` says in pixels: "2048" (square),
/// "1280x720", "832x480x81" (width, height, frames; four of a video's frames are one of its latent,
/// the first one alone). Error(Usage) where it says something else.
Step read_step(const std::filesystem::path& folder, const std::string& name, c10::Device device);

/// The same input as shapes on another device.
models::Inputs shapes_of(const models::Inputs& input, c10::Device device);

/// Makes room for the step's modulations (models/modulated.h) where its network takes them, so that it
/// is profiled as a step of a run.
void expect_modulations(const models::Network& network, Step& step);
/// Makes them as a run of so many steps does, for all its levels at once; seconds that it took. The
/// model is in place.
double make_modulations(streaming::StreamedModel& model, const models::Network& network, Step& step,
                        int levels);

/// A step as users' steps run: recorded where that is allowed.
at::Tensor step_of(streaming::StreamedModel& model, models::Network& network,
                   const models::Inputs& input);

/// Host seconds to issue a run, the device idle before: the median of `rounds`.
double issue_seconds(c10::Device device, const std::function<void()>& forward, int rounds = 5);

/// Blocks and steps of the resident model as the fit wants them; of long steps few runs.
std::vector<streaming::StepTarget> measure_targets(streaming::StreamedModel& model,
                                                   const models::Family& family,
                                                   models::Network& network, c10::Device device,
                                                   const std::string& label,
                                                   const std::vector<Step>& steps);

}  // namespace distorch::bench
