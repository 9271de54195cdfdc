#include "distorch/streaming/trace.h"

#include <c10/core/Event.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>

#include "distorch/device/streams.h"
#include "distorch/device/work_log.h"

namespace distorch::streaming {

namespace {

bool device_less(const c10::Device& a, const c10::Device& b) {
  return std::pair(a.type(), a.index()) < std::pair(b.type(), b.index());
}

bool has_timers(const c10::Stream& stream) { return stream.device_type() == c10::DeviceType::CUDA; }

c10::Event timed_event(const c10::Stream& stream) {
  c10::Event event(stream.device_type(), c10::EventFlag::BACKEND_DEFAULT);
  event.record(stream);
  return event;
}

double host_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

/// What a trace has collected; spans that are open keep it.
class TraceSpans {
 public:
  /// Returns the span's number.
  std::size_t open(const std::string& lane, const std::string& name, const c10::Stream& stream);
  void close(std::size_t span, const c10::Stream& stream);
  std::string to_json();

 private:
  struct Span {
    std::string lane, name;
    double start_s = 0, end_s = 0;
    std::optional<c10::Event> begin, end;
  };
  struct Origin {
    c10::Event event;
    double host_s;
  };
  std::mutex mutex_;
  std::deque<Span> spans_;
  std::map<c10::Device, Origin, bool (*)(const c10::Device&, const c10::Device&)> origins_{
      device_less};
};

namespace {

/// The spans of the trace that is on.
class Active {
 public:
  std::shared_ptr<TraceSpans> get() {
    if (!on_) return nullptr;
    std::lock_guard lock(mutex_);
    return spans_;
  }
  void set(std::shared_ptr<TraceSpans> spans) {
    std::lock_guard lock(mutex_);
    spans_ = std::move(spans);
    on_ = spans_ != nullptr;
  }
  bool is_on() const { return on_; }

 private:
  std::mutex mutex_;
  std::shared_ptr<TraceSpans> spans_;
  std::atomic<bool> on_{false};
};

Active& active() {
  static Active of_the_process;
  return of_the_process;
}

}  // namespace

std::size_t TraceSpans::open(const std::string& lane, const std::string& name,
                             const c10::Stream& stream) {
  std::lock_guard lock(mutex_);
  spans_.push_back({lane, name, host_now(), 0, {}, {}});
  if (has_timers(stream)) {
    if (!origins_.count(stream.device())) {
      device::synchronize(stream.device());
      origins_.emplace(stream.device(), Origin{timed_event(stream), host_now()});
    }
    spans_.back().begin = timed_event(stream);
  }
  return spans_.size() - 1;
}

void TraceSpans::close(std::size_t span, const c10::Stream& stream) {
  std::lock_guard lock(mutex_);
  if (has_timers(stream))
    spans_[span].end = timed_event(stream);
  else
    spans_[span].end_s = host_now();
}

std::string TraceSpans::to_json() {
  std::lock_guard lock(mutex_);
  std::map<std::string, int> lanes;
  nlohmann::ordered_json events = nlohmann::ordered_json::array();
  auto add = [&](const std::string& lane, const std::string& name, double start_s, double end_s,
                 std::int64_t bytes) {
    auto [at, fresh] = lanes.emplace(lane, static_cast<int>(lanes.size()) + 1);
    if (fresh)
      events.push_back({{"name", "thread_name"},
                        {"ph", "M"},
                        {"pid", 1},
                        {"tid", at->second},
                        {"args", {{"name", lane}}}});
    nlohmann::ordered_json event{
        {"name", name},      {"ph", "X"},           {"pid", 1},
        {"tid", at->second}, {"ts", start_s * 1e6}, {"dur", (end_s - start_s) * 1e6}};
    if (bytes) event["args"] = {{"bytes", bytes}};
    events.push_back(std::move(event));
  };
  double origin_s = spans_.empty() ? 0 : spans_.front().start_s;
  for (auto& span : spans_) {
    if (span.begin && span.end) {
      const auto& origin = origins_.at(span.begin->device());
      span.end->synchronize();
      span.start_s = origin.host_s + origin.event.elapsedTime(*span.begin) / 1e3;
      span.end_s = origin.host_s + origin.event.elapsedTime(*span.end) / 1e3;
    }
    if (span.end_s >= span.start_s)
      add(span.lane, span.name, span.start_s - origin_s, span.end_s - origin_s, 0);
  }
  for (const auto& work : device::logged_work())
    add(work.lane, work.name, work.start_s, work.end_s, work.bytes);
  return nlohmann::ordered_json{{"traceEvents", events}, {"displayTimeUnit", "ms"}}.dump() + "\n";
}

Trace::Trace() : spans_(std::make_shared<TraceSpans>()) {
  device::log_work(true);
  active().set(spans_);
}

Trace::~Trace() {
  active().set(nullptr);
  device::log_work(false);
}

bool Trace::is_on() { return active().is_on(); }

std::string Trace::to_json() { return spans_->to_json(); }

Traced::Traced(const std::string& lane, const std::string& name, const c10::Stream& stream)
    : spans_(device::logs_its_work(stream.device()) ? nullptr : active().get()), stream_(stream) {
  if (spans_) span_ = spans_->open(lane, name, stream);
}

Traced::~Traced() {
  if (spans_) spans_->close(span_, stream_);
}

}  // namespace distorch::streaming
