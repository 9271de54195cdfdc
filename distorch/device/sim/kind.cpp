#include "distorch/device/kind.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "distorch/device/sim/backend.h"
#include "distorch/device/sim/machine.h"

namespace distorch::device {
namespace {

// Does again what was recorded, operation by operation: for tests of those who record.
class SimRecording final : public Recording {
 public:
  explicit SimRecording(std::function<at::Tensor()> body) : body_(std::move(body)) {
    result_ = body_();
  }
  void replay() override { result_.copy_(body_()); }

 private:
  std::function<at::Tensor()> body_;
};

class SimKind final : public Kind {
 public:
  c10::DeviceType type() const override { return sim::kSim; }

  std::vector<DeviceInfo> list() override {
    std::vector<DeviceInfo> all;
    auto machine = sim::machine_or_null();
    for (int i = 0; machine && i < machine->device_count(); ++i) {
      const auto& spec = machine->description(i);
      const auto memory = machine->memory(i);
      auto text = fmt::format("simulated {}", spec.label.empty() ? spec.name : spec.label);
      all.push_back({fmt::format("sim:{}", i), "sim", std::move(text), memory.total,
                     memory.limit - memory.in_use, true,
                     spec.flops("bfloat16") > spec.flops("float32"), 0});
    }
    return all;
  }

  MemoryUse memory(int index) override {
    const auto m = sim::memory(index);
    return {m.total, m.limit - m.in_use, m.in_use, m.peak, m.in_use};
  }
  void reset_peak(int index) override { sim::reset_peak(index); }
  void empty_cache() override {}
  void limit_memory(int index, std::int64_t bytes) override { sim::limit_memory(index, bytes); }
  std::optional<std::string> register_host(void* start, std::int64_t bytes,
                                           bool read_only) override {
    if (sim::register_range(start, bytes, !read_only)) return std::nullopt;
    if (sim::is_registered(start, 1)) return "it is registered already";
    return "the simulated machine refuses to register more memory";
  }
  void unregister_host(void* start) noexcept override { sim::unregister_range(start); }
  // Beyond those of the pool. Not kept from call to call: the machine may change in between.
  c10::Stream sending_stream(c10::Device device) override {
    constexpr c10::StreamId kSending = 1000;
    return c10::Stream(c10::Stream::UNSAFE, device, kSending);
  }
  void host_touches(const void* start, std::int64_t bytes, bool writes) override {
    if (auto machine = sim::machine_or_null()) machine->host_touches({start, bytes, writes});
  }
  bool logs_its_work() override { return true; }
  void log_work(bool on) override {
    if (sim::installed()) sim::trace(on);
  }
  std::vector<LoggedWork> logged_work() override {
    if (!sim::installed()) return {};
    sim::finish();
    std::vector<LoggedWork> all;
    for (auto& done : sim::intervals())
      all.push_back(
          {std::move(done.lane), std::move(done.name), done.start_s, done.end_s, done.bytes});
    return all;
  }
  bool computes_as_cpu() override {
    const auto machine = sim::machine_or_null();
    return machine && machine->options().plans_cpu;
  }
  std::unique_ptr<Recording> record(int, const std::function<at::Tensor()>& body,
                                    const Recording*) override {
    return std::make_unique<SimRecording>(body);
  }
};

}  // namespace

Kind& sim_kind() {
  static SimKind kind;
  return kind;
}

}  // namespace distorch::device
