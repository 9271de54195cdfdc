#include "distorch/cli/placement_reports.h"

#include <algorithm>

#include "distorch/base/log.h"
#include "distorch/cli/plan_report.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"

namespace distorch::cli {

using graph::Json;
using streaming::EngineState;
using streaming::ModelState;

namespace {

using namespace std::chrono_literals;

constexpr auto kStepPause = 500ms;
constexpr auto kChangePause = 100ms;
constexpr auto kSpeedPause = 1s;
// Of the newest step in the mean.
constexpr double kNewest = 0.3;

Json as_json(const ModelState& model) {
  Json json{{"model", model.model},
            {"compute", model.compute},
            {"in_use", model.in_use},
            {"bytes", model.bytes},
            {"ring_bytes", model.ring_bytes},
            {"activation_bytes", model.activation_bytes},
            {"peak_bytes", model.peak_bytes},
            {"budget_bytes", model.budget_bytes},
            {"steps", model.steps},
            {"step_s", model.step_s},
            {"first_step_s", model.first_step_s},
            {"shares", Json::array()},
            {"lanes", Json::array()}};
  for (const auto& share : model.shares)
    json["shares"].push_back({{"device", share.device},
                              {"how", word_for(share.how)},
                              {"bytes", share.bytes},
                              {"blocks", share.blocks}});
  for (const auto& lane : model.lanes)
    json["lanes"].push_back({{"lane", lane.name}, {"bytes", lane.bytes}, {"busy_s", lane.busy_s}});
  return json;
}

double seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

PlacementReports::PlacementReports(streaming::Engine& engine, server::Messages& messages)
    : system_(engine.system(engine.device_for(""))), feed_(messages, [this] { return now(); }) {
  streaming::engine_watch().observe(this);
}

PlacementReports::~PlacementReports() { streaming::engine_watch().observe(nullptr); }

/// Called by the engine, whose work must not fail because of this.
void PlacementReports::tell(Clock::duration pause) {
  if (!feed_.is_watched()) return;
  {
    std::lock_guard lock(mutex_);
    if (Clock::now() - told_ < pause) return;
    told_ = Clock::now();
  }
  try {
    feed_.send();
  } catch (const std::exception& error) {
    log::debug("the placement was not told: {}", error.what());
  }
}

void PlacementReports::changed(const streaming::EngineEvent& event) {
  // Nothing has moved by a plan alone.
  if (event.kind != streaming::EngineEvent::Kind::Planned) tell(kChangePause);
}

void PlacementReports::settle() { tell(0ms); }

void PlacementReports::expect(const std::string& prompt_id, NodeSeconds seconds) {
  constexpr std::size_t kMost = 8;
  {
    std::lock_guard lock(mutex_);
    std::erase_if(expected_, [&](const auto& known) { return known.first == prompt_id; });
    if (expected_.size() == kMost) expected_.erase(expected_.begin());
    expected_.emplace_back(prompt_id, std::move(seconds));
  }
  settle();
}

PlacementReports::Run::Run(PlacementReports* reports, graph::EventSink& sink, const Json& prompt,
                           const std::vector<std::string>& outputs)
    : reports_(reports), sink_(sink), prompt_(prompt) {
  if (!reports_) return;
  std::lock_guard lock(reports_->mutex_);
  reports_->time_.emplace(prompt, outputs);
}

PlacementReports::Run::~Run() {
  if (!reports_) return;
  {
    std::lock_guard lock(reports_->mutex_);
    reports_->progress_.reset();
    reports_->time_.reset();
  }
  reports_->settle();
}

void PlacementReports::Run::send(const graph::Event& event) {
  sink_.send(event);
  if (reports_) reports_->note(event, prompt_);
}

void PlacementReports::note(const graph::Event& event, const Json& prompt) {
  {
    std::lock_guard lock(mutex_);
    if (time_) time_->note(event);
  }
  if (const auto* executing = std::get_if<graph::Executing>(&event)) {
    std::lock_guard lock(mutex_);
    progress_.reset();
    if (!executing->node) return;
    Progress progress;
    progress.prompt_id = executing->prompt_id;
    progress.node = *executing->node;
    if (auto node = prompt.find(progress.node); node != prompt.end() && node->is_object())
      progress.type = node->value("class_type", "");
    progress_ = std::move(progress);
  } else if (const auto* step = std::get_if<graph::Progress>(&event)) {
    std::lock_guard lock(mutex_);
    if (!progress_ || progress_->node != step->node) return;
    auto& progress = *progress_;
    auto now = Clock::now();
    auto steps = step->value - progress.value;
    if (progress.last_step && steps > 0) {
      auto one = seconds(now - *progress.last_step) / steps;
      progress.step_s = progress.step_s > 0 ? (1 - kNewest) * progress.step_s + kNewest * one : one;
    }
    progress.last_step = now;
    progress.value = step->value;
    progress.most = step->max;
  } else {
    return;
  }
  tell(kStepPause);
}

Json PlacementReports::devices(const EngineState& state) const {
  auto held = state.held_bytes();
  Json list = Json::array();
  for (const auto& device : system_.devices) {
    Json entry{{"device", device.name},
               {"total_bytes", device.total_bytes},
               {"budget_bytes", device.budget_bytes},
               {"held_bytes", held.contains(device.name) ? held[device.name] : 0}};
    if (placement::kind_of(device.name) != placement::DeviceKind::Disk) {
      auto use = device::memory_use(device::to_torch(device.name));
      entry["used_bytes"] = use.total - use.free;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

/// Bytes since the process began, and the speed of the last second or more.
Json PlacementReports::links(const EngineState& state) const {
  std::lock_guard lock(mutex_);
  auto now = Clock::now();
  if (auto passed = now - looked_; passed >= kSpeedPause) {
    const bool first = looked_ == Clock::time_point();
    for (const auto& [lane, bytes] : state.link_bytes) {
      speeds_[lane] = first ? 0 : static_cast<double>(bytes - carried_[lane]) / seconds(passed);
      carried_[lane] = bytes;
    }
    looked_ = now;
  }
  Json list = Json::array();
  for (const auto& [lane, bytes] : state.link_bytes)
    list.push_back({{"lane", lane}, {"bytes", bytes}, {"bytes_s", speeds_[lane]}});
  return list;
}

/// The node that runs, with the time that it takes by the steps it made, or by the plan; and what is
/// left of its prompt.
Json PlacementReports::run(const EngineState& state) const {
  std::lock_guard lock(mutex_);
  if (!progress_) return nullptr;
  const auto& progress = *progress_;
  auto step_s = progress.step_s;
  bool measured = step_s > 0;
  if (!measured)
    for (const auto& model : state.models)
      if (model.in_use) step_s = std::max(step_s, model.step_s);
  std::optional<double> left;
  if (progress.most > 0 && step_s > 0) left = step_s * (progress.most - progress.value);
  return {{"prompt_id", progress.prompt_id},
          {"node", progress.node},
          {"type", progress.type},
          {"value", progress.value},
          {"max", progress.most},
          {"step_s", step_s},
          {"measured", measured},
          {"left_s", left ? Json(*left) : Json()},
          {"prompt", left_of_prompt(left)}};
}

/// Null until the prompt's plan is there.
Json PlacementReports::left_of_prompt(std::optional<double> running_s) const {
  auto plan = std::find_if(expected_.begin(), expected_.end(),
                           [&](const auto& known) { return known.first == progress_->prompt_id; });
  if (plan == expected_.end() || !time_) return nullptr;
  auto left = time_->left(plan->second, running_s);
  return {{"left_s", left.seconds ? Json(*left.seconds) : Json()},
          {"nodes", left.nodes},
          {"unknown", left.unknown}};
}

Json PlacementReports::now() const {
  auto state = streaming::engine_watch().state();
  Json models = Json::array();
  for (const auto& model : state.models) models.push_back(as_json(model));
  const auto& counts = state.counts;
  return {{"models", std::move(models)},
          {"devices", devices(state)},
          {"links", links(state)},
          {"counts",
           {{"placed", counts.placed},
            {"reused", counts.reused},
            {"evicted", counts.evicted},
            {"evicted_bytes", counts.evicted_bytes},
            {"shrunk", counts.shrunk},
            {"shrunk_bytes", counts.shrunk_bytes}}},
          {"run", run(state)}};
}

}  // namespace distorch::cli
