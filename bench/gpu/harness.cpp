#include "bench/gpu/harness.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>

#include "distorch/base/atomic_file.h"
#include "distorch/device/device.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/streams.h"
#include "distorch/streaming/profile.h"

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

double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double time_calls(c10::Device device, const Rounds& rounds, const std::function<void()>& call) {
  for (int i = 0; i < rounds.warm_ups; ++i) call();
  device::synchronize(device);
  std::vector<double> seconds;
  for (int round = 0; round < rounds.rounds; ++round) {
    auto start = now_s();
    for (int i = 0; i < rounds.calls; ++i) call();
    device::synchronize(device);
    seconds.push_back((now_s() - start) / rounds.calls);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
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
  std::uint64_t hash = 0xcbf29ce484222325ull;
  const auto* bytes = static_cast<const unsigned char*>(host.const_data_ptr());
  for (std::size_t i = 0; i < host.nbytes(); ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ull;
  return fmt::format("{:016x}", hash);
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

void write_rig(const std::filesystem::path& path, const RigDevice& device, double link_bytes_per_s,
               double link_latency_s) {
  std::string speeds;
  for (const auto& [dtype, tflops] : device.tflops)
    speeds += fmt::format("{}{}: {:.4g}", speeds.empty() ? "" : ", ", dtype, tflops);
  auto host_bytes = sysconf(_SC_PHYS_PAGES) * static_cast<double>(sysconf(_SC_PAGESIZE));
  std::string text = fmt::format(
      "# Measured by bench/gpu on this machine: figures that meet its resident steps best.\n"
      "name: {0}, measured\n"
      "devices:\n"
      "  - name: cuda:0\n"
      "    label: {0}\n"
      "    memory: {1:.0f}MiB\n"
      "    tflops: {{{2}}}\n"
      "    memory_bandwidth_GBps: {3:.4g}\n"
      "    launch_us: {4:.3g}\n",
      device.label.empty() ? device.name : device.label,
      static_cast<double>(device.memory_bytes) / 1048576.0, speeds, device.memory_bytes_per_s / 1e9,
      device.launch_s * 1e6);
  text += fmt::format(
      "  - name: cpu\n"
      "    label: RAM\n"
      "    memory: {:.0f}MiB\n"
      "    tflops: {{float32: 1.0, bfloat16: 1.0, default: 1.0}}\n"
      "    memory_bandwidth_GBps: 300\n"
      "    launch_us: 1\n"
      "links:\n"
      "  - {{from: cpu, to: cuda:0, GBps: {:.4g}, latency_us: {:.3g}}}\n",
      host_bytes / 1048576.0, link_bytes_per_s / 1e9, std::max(0.1, link_latency_s * 1e6));
  write_file(path, text);
}

// --- calibration
// ----------------------------------------------------------------------------------

namespace {

double matmul_tflops(c10::Device device, at::ScalarType dtype, std::int64_t n) {
  auto a = seeded({n, n}, 1, dtype, device), b = seeded({n, n}, 2, dtype, device);
  auto seconds =
      time_calls(device, {.warm_ups = 2, .calls = 6, .rounds = 3}, [&] { at::mm(a, b); });
  return 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n) / seconds /
         1e12;
}

}  // namespace

RigDevice measure_device(const std::string& name) {
  auto info = device::find_device(name);
  auto device = device::to_torch(name);
  bool real = info.kind == "cuda";
  std::int64_t n = real ? 6144 : 128;
  RigDevice measured;
  measured.name = name;
  measured.label = info.description;
  measured.memory_bytes = info.total_bytes;
  measured.tflops["bfloat16"] = matmul_tflops(device, at::kBFloat16, n);
  measured.tflops["float16"] =
      real ? matmul_tflops(device, at::kHalf, n) : measured.tflops["bfloat16"];
  measured.tflops["float32"] = matmul_tflops(device, at::kFloat, n / 2);
  measured.tflops["default"] = measured.tflops["float32"];
  auto x = seeded({real ? 4608 : 64, 12288}, 3, at::kBFloat16, device);
  if (real) x = x.repeat({16, 1});
  auto y = at::empty_like(x);
  auto seconds =
      time_calls(device, {.warm_ups = 2, .calls = 8, .rounds = 3}, [&] { at::add_out(y, x, x); });
  measured.memory_bytes_per_s = 2.0 * static_cast<double>(x.nbytes()) / seconds;
  auto small = at::ones({256}, x.options());
  auto issue =
      time_calls(device, {.warm_ups = 50, .calls = 1000, .rounds = 3}, [&] { small.add_(1); });
  measured.launch_s = issue;
  return measured;
}

std::vector<Operation> operations_of(streaming::StreamedModel& model, const RigDevice& device,
                                     const std::function<void(c10::Device)>& forward) {
  std::vector<Operation> operations;
  streaming::profile_model(model, device, [&](at::Device on) {
    sim::trace(true);
    forward(on);
    sim::finish();
    for (const auto& interval : sim::intervals())
      operations.push_back({static_cast<double>(interval.bytes), interval.flops});
    sim::trace(false);
  });
  return operations;
}

double predict(const RigDevice& device, const std::string& dtype,
               const std::vector<Operation>& operations) {
  double seconds = 0, rate = device.flops(dtype);
  for (const auto& operation : operations)
    seconds += std::max(operation.bytes / device.memory_bytes_per_s, operation.flops / rate) +
               device.launch_s;
  return seconds;
}

double calibrate(RigDevice& device, const std::string& dtype, bool memory_too,
                 const std::vector<Target>& targets) {
  auto worst = [&](const RigDevice& candidate) {
    double error = 0;
    for (const auto& target : targets)
      error = std::max(error,
                       std::abs(predict(candidate, dtype, target.operations) / target.seconds - 1));
    return error;
  };
  double best = worst(device);
  auto consider = [&](const RigDevice& candidate) {
    auto error = worst(candidate);
    if (error >= best) return false;
    best = error;
    device = candidate;
    return true;
  };
  for (double step = 1.5; step > 1.001; step = std::sqrt(step)) {
    for (bool better = true; better;) {
      better = false;
      for (double factor : {step, 1 / step}) {
        auto candidate = device;
        candidate.tflops[dtype] *= factor;
        better = consider(candidate) || better;
        if (!memory_too) continue;
        candidate = device;
        candidate.memory_bytes_per_s *= factor;
        better = consider(candidate) || better;
        candidate = device;
        candidate.launch_s *= factor;
        better = consider(candidate) || better;
        candidate = device;
        candidate.tflops[dtype] *= factor;
        candidate.memory_bytes_per_s /= factor;
        better = consider(candidate) || better;
      }
    }
  }
  return best;
}

}  // namespace distorch::bench
