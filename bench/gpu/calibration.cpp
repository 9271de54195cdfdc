#include "bench/gpu/calibration.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/device/device.h"
#include "distorch/device/streams.h"

namespace distorch::bench {

using streaming::RunTimes;
using streaming::StepTarget;
using streaming::StreamedModel;

// --- single operations ---

namespace {

/// Work for about as long as asked that hardly loads the device (the softmax of one long row keeps
/// one of its processors busy), so that clocks stay as they are.
class HeadStart {
 public:
  explicit HeadStart(c10::Device device)
      : row_(at::zeros({1, device.is_cuda() ? 1 << 21 : 1 << 8},
                       at::TensorOptions().device(device))),
        result_(at::empty_like(row_)),
        real_(device.is_cuda()) {
    one_s_ = time_calls(device, {.warm_ups = 2, .calls = 8, .rounds = 3}, [this] { once(); });
  }
  void issue(double seconds) {
    // Simulated, the device waits for the host and not the other way round.
    const auto calls = real_ ? std::min(400.0, std::ceil(seconds / one_s_)) : 1;
    for (int i = 0; i < static_cast<int>(calls); ++i) once();
  }

 private:
  void once() { at::_softmax_out(result_, row_, -1, false); }

  at::Tensor row_, result_;
  bool real_;
  double one_s_ = 0;
};

/// Pairs of timing events on the current stream.
class Stopwatch {
 public:
  explicit Stopwatch(c10::Device device) : device_(device) {}

  void open(int block) { spans_.push_back({block, now(), std::nullopt}); }
  void close() { spans_.back().end = now(); }
  /// Waits for the device; seconds of all spans of a block (-1: between blocks).
  RunTimes read(std::size_t blocks) {
    device::synchronize(device_);
    RunTimes times{std::vector<double>(blocks, 0), 0};
    for (auto& span : spans_)
      (span.block < 0 ? times.outside_s : times.blocks[span.block]) +=
          span.begin.elapsedTime(*span.end) / 1e3;
    spans_.clear();
    return times;
  }

 private:
  struct Span {
    int block;
    c10::Event begin;
    std::optional<c10::Event> end;
  };

  c10::Event now() const {
    c10::Event event(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    event.record(device::current_stream(device_));
    return event;
  }

  c10::Device device_;
  std::vector<Span> spans_;
};

/// Device seconds of one of many calls in a row.
double time_on_device(c10::Device device, int calls, const std::function<void()>& call) {
  HeadStart head_start(device);
  Stopwatch watch(device);
  std::vector<double> seconds;
  for (int round = 0; round < 4; ++round) {  // the first one warms up
    head_start.issue(1e-3);
    watch.open(-1);
    for (int i = 0; i < calls; ++i) call();
    watch.close();
    seconds.push_back(watch.read(0).outside_s / calls);
  }
  return median({seconds.begin() + 1, seconds.end()});
}

/// At toy sizes starting an operation is all that it takes, or issuing it.
double without_start(double seconds, double launch_s) {
  return std::max(seconds - launch_s, seconds / 10);
}

double matmul_tflops(c10::Device device, at::ScalarType dtype, std::int64_t n, double launch_s) {
  auto a = seeded({n, n}, 1, dtype, device), b = seeded({n, n}, 2, dtype, device);
  const auto seconds = without_start(time_on_device(device, 8, [&] { at::mm(a, b); }), launch_s);
  return 2.0 * std::pow(static_cast<double>(n), 3) / seconds / 1e12;
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
  auto small = at::ones({256}, at::TensorOptions().dtype(at::kBFloat16).device(device));
  measured.launch_s = time_on_device(device, 100, [&] { small.neg_(); });
  measured.issue_s =
      time_calls(device, {.warm_ups = 50, .calls = 1000, .rounds = 3}, [&] { small.neg_(); });
  const auto tflops = [&](at::ScalarType dtype, std::int64_t size) {
    return matmul_tflops(device, dtype, size, measured.launch_s);
  };
  measured.tflops["bfloat16"] = tflops(at::kBFloat16, n);
  measured.tflops["float16"] = real ? tflops(at::kHalf, n) : measured.tflops["bfloat16"];
  measured.tflops["float32"] = tflops(at::kFloat, n / 2);
  measured.tflops["default"] = measured.tflops["float32"];
  auto x = seeded({real ? 4608 : 64, 12288}, 3, at::kBFloat16, device);
  if (real) x = x.repeat({16, 1});
  auto y = at::empty_like(x);
  const auto seconds =
      without_start(time_on_device(device, 8, [&] { at::neg_out(y, x); }), measured.launch_s);
  measured.memory_bytes_per_s = 2.0 * static_cast<double>(x.nbytes()) / seconds;
  return measured;
}

// --- blocks and steps ---

namespace {

/// Stands in front of a model and times each of its blocks.
class TimingSource final : public weights::WeightSource {
 public:
  TimingSource(StreamedModel& model, c10::Device device)
      : model_(model), head_start_(device), watch_(device) {
    model_.manifest().attach(this);
  }
  ~TimingSource() override { model_.manifest().attach(&model_); }

  RunTimes time(const std::function<void()>& forward) {
    head_start_.issue(kHeadStart_s);
    watch_.open(-1);
    forward();
    watch_.close();
    return watch_.read(model_.block_count());
  }

  weights::Tensors run(int block, const weights::Tensors& inputs,
                       const weights::Body& body) override {
    watch_.close();
    head_start_.issue(kHeadStart_s);
    watch_.open(block);
    auto results = model_.run(block, inputs, body);
    watch_.close();
    watch_.open(-1);
    return results;
  }

 private:
  static constexpr double kHeadStart_s = 4e-3;  // several times what issuing a block takes

  StreamedModel& model_;
  HeadStart head_start_;
  Stopwatch watch_;
};

}  // namespace

RunTimes time_blocks(StreamedModel& model, c10::Device device, int rounds,
                     const std::function<void()>& forward) {
  TimingSource source(model, device);
  source.time(forward);
  std::vector<RunTimes> runs;
  for (int round = 0; round < rounds; ++round) runs.push_back(source.time(forward));
  const auto median_of = [&](const auto& pick) {
    std::vector<double> values;
    for (const auto& run : runs) values.push_back(pick(run));
    return median(std::move(values));
  };
  RunTimes times;
  for (std::size_t block = 0; block < model.block_count(); ++block)
    times.blocks.push_back(median_of([&](const RunTimes& run) { return run.blocks[block]; }));
  times.outside_s = median_of([](const RunTimes& run) { return run.outside_s; });
  return times;
}

double device_seconds(c10::Device device, double resident_s, double issue_s,
                      const std::function<void()>& forward) {
  constexpr double ahead = 0.7;
  // A simulated device has a clock of its own.
  if (device.is_cuda() && issue_s < ahead * resident_s) return resident_s;
  HeadStart head_start(device);
  Stopwatch watch(device);
  std::vector<double> seconds;
  for (int round = 0; round < 7; ++round) {
    head_start.issue(1.2 * issue_s);
    watch.open(-1);
    forward();
    watch.close();
    seconds.push_back(watch.read(0).outside_s);
  }
  return median(std::move(seconds));
}

// --- files ---

Rig rig_of(const RigDevice& device, const Link& link) {
  Rig rig;
  rig.name = fmt::format("{}, measured", device.label.empty() ? device.name : device.label);
  rig.devices = {device, RigDevice{}};
  rig.devices[0].name = "cuda:0";
  auto& host = rig.devices[1];
  host.name = "cpu";
  host.label = "RAM";
  host.memory_bytes = static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  host.tflops = {{"default", 1}};
  host.memory_bytes_per_s = 300e9;
  host.launch_s = 1e-6;
  LinkSpec spec;
  spec.from = "cpu";
  spec.to = "cuda:0";
  spec.bytes_per_s = link.bytes_per_s;
  spec.latency_s = link.latency_s;
  rig.links = {spec};
  return rig;
}

void write_calibration(const std::filesystem::path& path, const Calibration& calibration) {
  Json json{{"rig", rig_text(calibration.rig)}, {"steps", streaming::to_json(calibration.steps)}};
  write_file(path, json.dump() + "\n");
}

Calibration read_calibration(const std::filesystem::path& path) {
  constexpr std::size_t largest = std::size_t{64} << 20;
  const auto json = Json::parse(read_file(path, largest), nullptr, false);
  if (!json.is_object() || !json.contains("steps") || !json.contains("rig") ||
      !json["rig"].is_string())
    throw Error(ErrorKind::Format, path.string(), "is not an object with 'rig' and 'steps'");
  return {parse_rig(json["rig"].get<std::string>(), path.string() + ": rig"),
          streaming::targets_from_json(json["steps"], path.string())};
}

void fit_and_tell(RigDevice& device, const std::vector<StepTarget>& steps) {
  const auto error = streaming::calibrate(device, steps);
  struct Miss {
    std::string name;
    double off, share;
  };
  std::vector<Miss> misses;
  for (const auto& step : steps) {
    fmt::print("fitted: {:<20} {:.5f} s measured, {:+.1f} %\n", step.name, step.seconds,
               100 * (streaming::predict(device, step) / step.seconds - 1));
    for (const auto& block : step.blocks)
      misses.push_back({step.name + " " + block.name,
                        streaming::seconds_of(device, block.kernels) / block.seconds - 1,
                        block.count * block.seconds / step.seconds});
  }
  std::sort(misses.begin(), misses.end(), [](const Miss& a, const Miss& b) {
    return std::abs(a.off) * a.share > std::abs(b.off) * b.share;
  });
  for (std::size_t i = 0; i < std::min<std::size_t>(5, misses.size()); ++i)
    fmt::print("  block {:<40} {:.1f} % of its step, {:+.1f} %\n", misses[i].name,
               100 * misses[i].share, 100 * misses[i].off);
  fmt::print("largest error of a step {:.1f} %, of blocks {:.1f} %\n", 100 * error.steps,
             100 * error.blocks);
}

}  // namespace distorch::bench
