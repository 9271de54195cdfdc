#pragma once
#include "bench/gpu/placed.h"
#include "distorch/streaming/calibration.h"

// From times measured on an accelerator to a rig that predicts them (streaming/calibration.h has
// the fit).
namespace distorch::bench {

/// Speeds of a device from operations timed one by one: large matrix products by dtype, an
/// element-wise operation, small ones on the device (launch_s) and on the host (issue_s).
RigDevice measure_device(const std::string& name);

/// Device seconds of every block of a model that is resident, and of what lies between them: the
/// median of `rounds` runs. In front of each block the device gets something else to do, so that
/// the block is issued before its turn comes and the host's time does not count.
streaming::RunTimes time_blocks(streaming::StreamedModel& model, c10::Device device, int rounds,
                                const std::function<void()>& forward);

/// Device seconds of a whole run: `resident_s` (run after run, timed by the host) where the host
/// keeps ahead, else measured with a head start for the host, which needs `issue_s` for a run.
double device_seconds(c10::Device device, double resident_s, double issue_s,
                      const std::function<void()>& forward);

/// The accelerator as "cuda:0" beside this machine's RAM and the link between them.
Rig rig_of(const RigDevice& device, const Link& link);

/// What a fit needs, in one JSON file: the measured machine and the measured steps.
struct Calibration {
  Rig rig;
  std::vector<streaming::StepTarget> steps;
};
void write_calibration(const std::filesystem::path& path, const Calibration& calibration);
/// Error(MissingFile), Error(Format).
Calibration read_calibration(const std::filesystem::path& path);

/// Fits `device` and prints how well it predicts every step, and the worst blocks.
void fit_and_tell(RigDevice& device, const std::vector<streaming::StepTarget>& steps);

}  // namespace distorch::bench
