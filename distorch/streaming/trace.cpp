#include "distorch/streaming/trace.h"

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>

#include "distorch/device/streams.h"
#include "distorch/device/work_log.h"

namespace distorch::streaming {

namespace {

std::atomic<Trace*> active{nullptr};

bool device_less(const c10::Device& a, const c10::Device& b) {
  return std::pair(a.type(), a.index()) < std::pair(b.type(), b.index());
}

bool has_timers(const c10::Stream& stream) { return stream.device_type() == c10::DeviceType::CUDA; }

c10::Event timed_event(const c10::Stream& stream) {
  c10::Event event(stream.device_type(), c10::EventFlag::BACKEND_DEFAULT);
  event.record(stream);
  return event;
}

}  // namespace

Trace::Trace() : origins_(device_less) {
  device::log_work(true);
  active = this;
}

Trace::~Trace() {
  active = nullptr;
  device::log_work(false);
}

Trace* Trace::current() { return active; }

double Trace::host_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void Trace::host_span(const std::string& lane, const std::string& name, double start_s,
                      double end_s) {
  std::lock_guard lock(mutex_);
  spans_.push_back({lane, name, start_s, end_s, {}, {}});
}

std::size_t Trace::open(const std::string& lane, const std::string& name,
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

void Trace::close(std::size_t span, const c10::Stream& stream) {
  std::lock_guard lock(mutex_);
  if (has_timers(stream))
    spans_[span].end = timed_event(stream);
  else
    spans_[span].end_s = host_now();
}

std::string Trace::to_json() {
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

Traced::Traced(const std::string& lane, const std::string& name, const c10::Stream& stream)
    : trace_(device::logs_its_work(stream.device()) ? nullptr : Trace::current()), stream_(stream) {
  if (trace_) span_ = trace_->open(lane, name, stream);
}

Traced::~Traced() {
  if (trace_) trace_->close(span_, stream_);
}

}  // namespace distorch::streaming
