#include "distorch/cli/plan_report.h"

#include <algorithm>

#include "distorch/placement/alternatives.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/tables.h"

namespace distorch::cli {

using graph::Json;
using streaming::PlannedRun;

namespace {

Priced price(const PlannedRun& run) {
  placement::Timeline timeline(run.system, run.blocks);
  Priced priced{&run, timeline.report(run.placement), run.placement, 0, 1, {}};
  priced.best_step_s = priced.report.step_s;
  auto best = placement::auto_plan(run.system, run.blocks);
  if (auto step_s = timeline.step_s(best); step_s < priced.best_step_s)
    priced.best = best, priced.best_step_s = step_s;
  return priced;
}

bool same_run(const Priced& a, const Priced& b) {
  return a.run->model == b.run->model && a.run->compute == b.run->compute &&
         a.run->steps == b.run->steps && a.run->placement == b.run->placement &&
         a.run->others_bytes == b.run->others_bytes && a.report.step_s == b.report.step_s &&
         a.run->beside == b.run->beside;
}

}  // namespace

double Priced::seconds() const {
  return run->beside ? 0 : report.first_s + report.step_s * (run->steps - 1);
}

std::string Priced::reason() const {
  return placement::reason(run->system, run->blocks, run->placement);
}

std::vector<Priced> price_all(const std::vector<PlannedRun>& runs) {
  std::vector<Priced> all;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto& run = runs[i];
    auto priced = price(run);
    priced.runs = {i};
    auto known = std::find_if(all.begin(), all.end(), [&](const Priced& other) {
      return run.gave_way.empty() && same_run(other, priced);
    });
    if (known == all.end()) {
      all.push_back(std::move(priced));
    } else {
      ++known->times;
      known->runs.push_back(i);
    }
  }
  return all;
}

const char* word_for(placement::How how) {
  switch (how) {
    case placement::How::Resident: return "resident";
    case placement::How::Streamed: return "streamed";
    case placement::How::OnDonor: return "on donor";
    case placement::How::Aside: return "aside";
  }
  return "";
}

std::map<std::pair<int, placement::How>, Held> held_of(const Priced& priced) {
  std::map<std::pair<int, placement::How>, Held> held_by_device;
  const auto& run = *priced.run;
  for (std::size_t i = 0; i < run.placement.blocks.size(); ++i) {
    const auto& home = run.placement.blocks[i];
    const auto resting = placement::resting_bytes(run.blocks.blocks[i], home);
    auto& held = held_by_device[{home.device, home.how}];
    held.bytes += run.blocks.blocks[i].bytes + run.blocks.blocks[i].aside_bytes - resting;
    ++held.blocks;
    if (resting > 0)
      held_by_device[{run.placement.compute, placement::How::Resident}].bytes += resting;
  }
  return held_by_device;
}

Json as_json(const Priced& priced) {
  const auto& run = *priced.run;
  Json json{{"model", run.model},
            {"compute", run.compute},
            {"bytes", run.blocks.bytes() + run.blocks.aside_bytes()},
            {"steps", run.steps},
            {"times", priced.times},
            {"step_s", priced.report.step_s},
            {"first_step_s", priced.report.first_s},
            {"compute_s", priced.report.compute_s},
            {"wait_s", priced.report.wait_s},
            {"bound_s", priced.report.bound_s},
            {"peak_bytes", run.placement.peak_bytes()},
            {"activation_bytes", run.placement.activation_bytes},
            {"ring_bytes", run.placement.ring_bytes()},
            {"others_bytes", run.others_bytes},
            {"gave_way", run.gave_way},
            {"expert_string", placement::expert_string(run.system, run.blocks, run.placement)},
            {"best_step_s", priced.best_step_s},
            {"best_expert_string", placement::expert_string(run.system, run.blocks, priced.best)}};
  if (const auto aside = run.blocks.aside_bytes(); aside > 0) json["aside_bytes"] = aside;
  if (run.beside) json["beside"] = true;
  if (auto reason = priced.reason(); !reason.empty()) json["reason"] = reason;
  for (const auto& [key, held] : held_of(priced))
    json["devices"].push_back({{"device", run.system.devices[key.first].name},
                               {"how", word_for(key.second)},
                               {"bytes", held.bytes},
                               {"blocks", held.blocks}});
  for (const auto& lane : priced.report.lanes)
    json["lanes"].push_back({{"lane", lane.name}, {"busy_s", lane.busy_s}, {"bytes", lane.bytes}});
  return json;
}

}  // namespace distorch::cli
