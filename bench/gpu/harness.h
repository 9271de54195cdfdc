#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

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

/// What the programs' main() does: `run` in inference mode, on the machine that --rig describes where
/// it is given. An error is told under the program's name and gives 1.
int run_program(const char* name, int argc, char** argv, int (*run)(const Args&));

double now_s();  // host clock
double median(std::vector<double> values);

/// Seconds of one call: `calls` calls back to back, then the device is waited for; the median of
/// `rounds` such rounds after `warm_ups` calls.
struct Rounds {
  int warm_ups = 2, calls = 4, rounds = 5;
  /// As many of each as take about `most_s` where a call takes `call_s`; at least a warm-up and two
  /// rounds of one call. peer_network.py counts the same way.
  Rounds within(double most_s, double call_s) const;
};
double time_calls(c10::Device device, const Rounds& rounds, const std::function<void()>& call);
/// The same where only this stream is waited for, whatever others do.
double time_calls(const c10::Stream& stream, const Rounds& rounds,
                  const std::function<void()>& call);

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

}  // namespace distorch::bench
