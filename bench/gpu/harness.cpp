#include "bench/gpu/harness.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "distorch/base/atomic_file.h"
#include "distorch/base/hash.h"
#include "distorch/base/rig.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/streams.h"

namespace distorch::bench {

std::string Args::get(const std::string& name, const std::string& otherwise) const {
  for (std::size_t i = 0; i + 1 < words_.size(); ++i)
    if (words_[i] == name) return words_[i + 1];
  return otherwise;
}

double Args::number(const std::string& name, double otherwise) const {
  auto text = get(name);
  return text.empty() ? otherwise : std::stod(text);
}

int run_program(const char* name, int argc, char** argv, int (*run)(const Args&)) {
  c10::InferenceMode inference;
  try {
    Args args(argc, argv);
    if (auto rig = args.get("--rig"); !rig.empty()) sim::install(read_rig(rig), sim::Mode::Exec);
    return run(args);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", name, error.what());
    return 1;
  }
}

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.at(values.size() / 2);
}

Rounds Rounds::within(double most_s, double call_s) const {
  const auto fit = static_cast<int>(std::min(1e6, most_s / call_s));
  const int total = warm_ups + calls * rounds;
  if (total <= fit) return *this;
  Rounds fewer;
  fewer.warm_ups = std::max(1, warm_ups * fit / total);
  fewer.calls = std::max(1, (fit - fewer.warm_ups) / rounds);
  fewer.rounds = std::max(2, std::min(rounds, (fit - fewer.warm_ups) / fewer.calls));
  return fewer;
}

namespace {

template <class Awaited>
double time_rounds(const Awaited& awaited, const Rounds& rounds,
                   const std::function<void()>& call) {
  for (int i = 0; i < rounds.warm_ups; ++i) call();
  device::synchronize(awaited);
  std::vector<double> seconds;
  for (int round = 0; round < rounds.rounds; ++round) {
    auto start = now_s();
    for (int i = 0; i < rounds.calls; ++i) call();
    device::synchronize(awaited);
    seconds.push_back((now_s() - start) / rounds.calls);
  }
  return median(seconds);
}

}  // namespace

double time_calls(c10::Device device, const Rounds& rounds, const std::function<void()>& call) {
  return time_rounds(device, rounds, call);
}

double time_calls(const c10::Stream& stream, const Rounds& rounds,
                  const std::function<void()>& call) {
  return time_rounds(stream, rounds, call);
}

double time_issue(c10::Device device, int calls, const std::function<void()>& call) {
  device::synchronize(device);
  auto start = now_s();
  for (int i = 0; i < calls; ++i) call();
  auto seconds = (now_s() - start) / calls;
  device::synchronize(device);
  return seconds;
}

void Results::add(const std::string& name, double ours, double peer, const std::string& unit,
                  const Json& more) {
  Json entry{
      {"name", name}, {"ours", ours}, {"peer", peer}, {"unit", unit}, {"ratio", ours / peer}};
  entry.update(more);
  list_.push_back(entry);
  write_file(path_, list_.dump(1) + "\n");
  fmt::print("{:<46} {:>10.4f} {:>10.4f} {:<5} {:>7.3f}\n", name, ours, peer, unit, ours / peer);
  std::fflush(stdout);
}

std::string fingerprint(const at::Tensor& tensor) {
  auto host = tensor.cpu().contiguous();
  std::string_view bytes(static_cast<const char*>(host.const_data_ptr()), host.nbytes());
  return hex(digest(bytes));
}

at::Tensor seeded(at::IntArrayRef shape, int seed, at::ScalarType dtype, c10::Device device) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(seed));
  return at::randn(shape, generator).to(dtype).to(device);
}

double resident_set_bytes() {
  std::ifstream file("/proc/self/statm");
  double size = 0, resident = 0;
  file >> size >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

}  // namespace distorch::bench
