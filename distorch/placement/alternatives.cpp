#include "distorch/placement/alternatives.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "distorch/base/error.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/baselines.h"
#include "distorch/placement/spread.h"
#include "distorch/placement/timeline.h"

namespace distorch::placement {
namespace {

constexpr double kNever = LinkClock::kNever;

bool is_other(const System& system, int device) {
  return device != system.compute &&
         kind_of(system.devices[device].name) == DeviceKind::Accelerator &&
         system.devices[device].budget_bytes > 0;
}

bool runs_elsewhere(const Placement& placement) {
  return std::any_of(placement.blocks.begin(), placement.blocks.end(),
                     [](const Home& home) { return home.how == How::OnDonor; });
}

Alternative planned(const std::string& name, const System& system, const Model& model) try {
  const Placement placement = auto_plan(system, model);
  return {name, Timeline(system, model).step_s(placement), placement};
} catch (const Error& error) {
  if (error.kind() != ErrorKind::OutOfMemory) throw;
  return {name, kNever, {}};
}

Alternative best_split(const System& system, const Model& model) {
  Timeline clock(system, model);
  Alternative best{"a layer split", kNever, {}};
  for (const Named& named : baselines(system, model)) {
    if (!runs_elsewhere(named.placement)) continue;
    const double step = clock.step_s(named.placement);
    if (step < best.step_s) best = {best.name, step, named.placement};
  }
  return best;
}

std::string seconds(double value) {
  return std::isfinite(value) ? fmt::format("{:.3g} s", value) : std::string("no room");
}

}  // namespace

std::vector<Alternative> alternatives(const System& asked_system, const Model& asked_model) {
  const System system = reachable(asked_system);
  const Model model = with_seconds(asked_model, system.compute);
  System alone = system;
  Model streamed = model;
  bool any = false;
  for (int d = 0; d < static_cast<int>(system.devices.size()); ++d) {
    if (!is_other(system, d)) continue;
    any = true;
    alone.devices[d].budget_bytes = 0;
    for (Block& block : streamed.blocks)
      if (d < static_cast<int>(block.seconds.size())) block.seconds[d] = -1;
  }
  if (!any) return {};
  return {planned("without", alone, model), planned("streaming from there alone", system, streamed),
          best_split(system, model)};
}

std::string reason(const System& system, const Model& model, const Placement& placement) {
  std::map<int, std::pair<int, int>> used;  // by device: blocks that run there, that stream from it
  for (const Home& home : placement.blocks) {
    if (!is_other(system, home.device)) continue;
    if (home.how == How::OnDonor) ++used[home.device].first;
    if (home.how == How::Streamed) ++used[home.device].second;
  }
  if (used.empty()) return "";
  std::vector<std::string> what, others;
  const auto blocks = [](int count, const char* verb, const char* plural) {
    return fmt::format("{} block{} {}", count, count == 1 ? "" : "s", count == 1 ? verb : plural);
  };
  for (const auto& [device, counts] : used) {
    const auto& name = system.devices[device].name;
    if (counts.first > 0) what.push_back(blocks(counts.first, "runs", "run") + " on " + name);
    if (counts.second > 0)
      what.push_back(blocks(counts.second, "streams", "stream") + " from " + name);
  }
  for (const Alternative& other : alternatives(system, model))
    others.push_back(fmt::format("{} {}", other.name, seconds(other.step_s)));
  return fmt::format("{}: {} a step; {}", fmt::join(what, ", "),
                     seconds(Timeline(system, model).step_s(placement)), fmt::join(others, ", "));
}

}  // namespace distorch::placement
