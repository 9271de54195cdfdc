#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "distorch/base/rig.h"
#include "distorch/streaming/streamed_model.h"

// What the benchmark programs for accelerators share: arguments, timing, the list of results.
namespace distorch::bench {

using Json = nlohmann::json;

/// "--name VALUE" pairs of a command line.
class Args {
 public:
  Args(int argc, char** argv) : words_(argv + 1, argv + argc) {}
  std::string get(const std::string& name, const std::string& otherwise = "") const;
  double number(const std::string& name, double otherwise) const;

 private:
  std::vector<std::string> words_;
};

double now_s();  // host clock

/// Seconds of one call: `calls` calls back to back, then the device is waited for; the median of
/// `rounds` such rounds after `warm_ups` calls.
struct Rounds {
  int warm_ups = 2, calls = 4, rounds = 5;
};
double time_calls(c10::Device device, const Rounds& rounds, const std::function<void()>& call);

/// Seconds the host needs to issue one call, the device left to work behind: near the whole step
/// where launches bound it.
double time_issue(c10::Device device, int calls, const std::function<void()>& call);

/// A list of {name, ours, peer, unit, ratio, ...} that is written after every entry, so that a run
/// which is cut short leaves what it had. Printed as it grows.
class Results {
 public:
  explicit Results(std::filesystem::path path) : path_(std::move(path)) {}
  /// ratio = ours / peer; `more` is merged into the entry.
  void add(const std::string& name, double ours, double peer, const std::string& unit,
           const Json& more = Json::object());

 private:
  std::filesystem::path path_;
  Json list_ = Json::array();
};

/// A hash of a tensor's bytes: equal bits, equal text.
std::string fingerprint(const at::Tensor& tensor);
/// A standard normal tensor of a seed, in `dtype` on `device`: the same on every machine.
at::Tensor seeded(at::IntArrayRef shape, int seed, at::ScalarType dtype, c10::Device device);
/// Resident set of this process in bytes.
double resident_set_bytes();

/// A described device as rigs/*.yaml wants it, with its link from RAM.
void write_rig(const std::filesystem::path& path, const RigDevice& device, double link_bytes_per_s,
               double link_latency_s);

/// Speeds of a device from operations timed one by one: large matrix products by dtype, an
/// element-wise operation, the issue of small ones.
RigDevice measure_device(const std::string& name);

/// An operation as the simulator's cost model sees it: seconds = max(bytes / bandwidth, flops /
/// speed) + launch.
struct Operation {
  double bytes = 0, flops = 0;
};
/// The operations of `forward`, run dry on a simulated device (as streaming::profile_model does
/// it).
std::vector<Operation> operations_of(streaming::StreamedModel& model, const RigDevice& device,
                                     const std::function<void(c10::Device)>& forward);

/// A figure to be met by a prediction.
struct Target {
  double seconds;
  std::vector<Operation> operations;
};
double predict(const RigDevice& device, const std::string& dtype,
               const std::vector<Operation>& operations);

/// Moves the speed of `dtype` (and, where asked, memory bandwidth and launch cost) until the
/// largest relative error over the targets is least. Returns that error.
double calibrate(RigDevice& device, const std::string& dtype, bool memory_too,
                 const std::vector<Target>& targets);

}  // namespace distorch::bench
