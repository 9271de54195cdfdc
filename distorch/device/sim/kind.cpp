#include "distorch/device/kind.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <fmt/format.h>

#include "distorch/device/channels_last.h"
#include "distorch/device/sim/backend.h"
#include "distorch/device/sim/machine.h"
#include "distorch/device/streams.h"

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
  // As the real one does it: no memory beside, one pass.
  bool to_channels_last_in_place(const at::Tensor& weight, const c10::Stream& stream) override {
    static const std::string name = "distorch::to_channels_last";
    c10::StreamGuard guard(stream);
    sim::Operation operation(name);
    operation.input(weight);  // read once, written once
    auto view = operation.input(weight, true);
    operation.begin();
    if (!operation.is_dry()) device::to_channels_last_in_place(view, current_stream(at::kCPU));
    operation.end();
    return true;
  }
  at::Tensor group_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        const GroupNormOptions& options) override {
    static const std::string name = "distorch::group_norm";
    sim::Operation operation(name);
    auto image = operation.input(x);
    auto w = operation.input(weight), b = operation.input(bias);
    operation.begin();
    auto y = operation.is_dry() ? at::empty_like(image)
                                : at::group_norm(image, options.groups, w, b, options.eps);
    if (options.silu && !operation.is_dry()) at::silu_(y);
    auto result = operation.output(y);
    operation.end({.kind = KernelKind::Normalization});
    return result;
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
