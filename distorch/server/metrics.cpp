#include "distorch/server/metrics.h"

#include <fmt/format.h>

#include <chrono>

namespace distorch::server {

namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A label's value: quotes, backslashes and line ends are escaped.
std::string label(const std::string& text) {
  std::string result;
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c == '\n' ? ' ' : c;
  }
  return result;
}

class Page {
 public:
  void describe(const char* name, const char* type, const char* help) {
    text_ += fmt::format("# HELP distorch_{} {}\n# TYPE distorch_{} {}\n", name, help, name, type);
  }
  template <class Number>
  void add(const char* name, Number value) {
    text_ += fmt::format("distorch_{} {}\n", name, value);
  }
  template <class Number>
  void add(const char* name, const char* key, const std::string& value, Number number) {
    text_ += fmt::format("distorch_{}{{{}=\"{}\"}} {}\n", name, key, label(value), number);
  }
  std::string text() && { return std::move(text_); }

 private:
  std::string text_;
};

void add_devices(Page& page, const Json& devices) {
  if (!devices.is_object() || !devices.contains("devices")) return;
  page.describe("device_memory_bytes", "gauge", "Memory of a device.");
  for (const auto& device : devices["devices"])
    page.add("device_memory_bytes", "device", device.value("name", ""),
             device.value("total_bytes", std::int64_t{0}));
  page.describe("device_free_bytes", "gauge", "Memory of a device that nobody uses.");
  for (const auto& device : devices["devices"])
    page.add("device_free_bytes", "device", device.value("name", ""),
             device.value("free_bytes", std::int64_t{0}));
}

void add_engine(Page& page, const EngineNumbers& engine) {
  page.describe("device_held_bytes", "gauge", "Weights and buffers of models on a device.");
  for (const auto& [device, bytes] : engine.held_bytes)
    page.add("device_held_bytes", "device", device, bytes);
  page.describe("link_bytes_total", "counter", "Bytes of weights that crossed a link.");
  for (const auto& [link, bytes] : engine.link_bytes)
    page.add("link_bytes_total", "link", link, bytes);
  auto count = [&](const char* name, const char* help, std::int64_t value) {
    page.describe(name, "counter", help);
    page.add(name, value);
  };
  count("models_placed_total", "Models that were placed anew.", engine.placed);
  count("models_reused_total", "Models that were found where they were left.", engine.reused);
  count("models_evicted_total", "Models that made room for others.", engine.evicted);
  count("models_evicted_bytes_total", "Bytes of these models.", engine.evicted_bytes);
  count("models_shrunk_total", "Models that gave up a part for others.", engine.shrunk);
  count("models_shrunk_bytes_total", "Bytes of these parts.", engine.shrunk_bytes);
}

}  // namespace

void Metrics::accepted() {
  std::lock_guard lock(mutex_);
  ++accepted_;
}

void Metrics::refused() {
  std::lock_guard lock(mutex_);
  ++refused_;
}

void Metrics::ended(const Outcome& outcome) {
  auto started = outcome.started_ms(), ended = outcome.ended_ms();
  constexpr double kMillisecond = 1e-3;
  std::lock_guard lock(mutex_);
  ++ended_[outcome.state == JobState::Completed ? 0 : outcome.state == JobState::Failed ? 1 : 2];
  if (started && ended) run_seconds_ += static_cast<double>(*ended - *started) * kMillisecond;
}

void Metrics::count(const graph::Event& event) {
  std::lock_guard lock(mutex_);
  if (const auto* executing = std::get_if<graph::Executing>(&event)) {
    nodes_run_ += executing->node.has_value();
    last_s_ = seconds_now();
  } else if (const auto* cached = std::get_if<graph::ExecutionCached>(&event)) {
    nodes_cached_ += static_cast<std::int64_t>(cached->nodes.size());
  } else if (std::holds_alternative<graph::Progress>(event)) {
    auto now = seconds_now();
    ++steps_;
    step_seconds_ += now - last_s_;
    last_s_ = now;
  }
}

std::string Metrics::text(std::size_t waiting, std::size_t running, const Json& devices,
                          const EngineNumbers& engine) const {
  Page page;
  page.describe("queue_prompts", "gauge", "Prompts that wait or run.");
  page.add("queue_prompts", "state", "waiting", waiting);
  page.add("queue_prompts", "state", "running", running);
  std::lock_guard lock(mutex_);
  page.describe("prompts_accepted_total", "counter", "Prompts taken into the queue.");
  page.add("prompts_accepted_total", accepted_);
  page.describe("prompts_refused_total", "counter", "Prompts that did not pass validation.");
  page.add("prompts_refused_total", refused_);
  page.describe("prompts_ended_total", "counter", "Prompts by how they ended.");
  constexpr std::array outcomes = {"completed", "failed", "cancelled"};
  for (std::size_t i = 0; i < outcomes.size(); ++i)
    page.add("prompts_ended_total", "outcome", outcomes[i], ended_[i]);
  page.describe("run_seconds_total", "counter", "Time that prompts ran.");
  page.add("run_seconds_total", run_seconds_);
  page.describe("nodes_run_total", "counter", "Nodes that were run.");
  page.add("nodes_run_total", nodes_run_);
  page.describe("nodes_cached_total", "counter", "Nodes whose result was kept from a run before.");
  page.add("nodes_cached_total", nodes_cached_);
  page.describe("steps_total", "counter", "Steps that nodes reported.");
  page.add("steps_total", steps_);
  page.describe("step_seconds_total", "counter", "Time that these steps took.");
  page.add("step_seconds_total", step_seconds_);
  add_engine(page, engine);
  add_devices(page, devices);
  return std::move(page).text();
}

}  // namespace distorch::server
