#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iostream>
#include <memory>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/cli/commands.h"
#include "distorch/cli/machine_options.h"
#include "distorch/cli/table.h"
#include "distorch/cli/workflow_run.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/drawing.h"
#include "distorch/placement/tables.h"
#include "distorch/placement/timeline.h"

namespace distorch::cli {

namespace {

using graph::Json;
using streaming::PlannedRun;

struct Options {
  MachineOptions machine;
  std::string workflow, svg;
  bool json = false;
};

/// A planned run with its figures, and what the free planner would make of it.
struct Priced {
  const PlannedRun* run;
  placement::Report report;
  placement::Placement best;
  double best_step_s;
  int times = 1;  // that the workflow has such a run, as of a text encoder for every prompt
};

Priced price(const PlannedRun& run) {
  placement::Timeline timeline(run.system, run.blocks);
  Priced priced{&run, timeline.report(run.placement), run.placement, 0};
  priced.best_step_s = priced.report.step_s;
  auto best = placement::auto_plan(run.system, run.blocks);
  if (auto step_s = timeline.step_s(best); step_s < priced.best_step_s)
    priced.best = best, priced.best_step_s = step_s;
  return priced;
}

bool same_run(const Priced& a, const Priced& b) {
  return a.run->model == b.run->model && a.run->compute == b.run->compute &&
         a.run->steps == b.run->steps && a.run->placement == b.run->placement &&
         a.run->others_bytes == b.run->others_bytes && a.report.step_s == b.report.step_s;
}

/// Every run that the workflow makes; equal ones once, where the first of them is.
std::vector<Priced> price_all(const std::vector<PlannedRun>& runs) {
  std::vector<Priced> all;
  for (const auto& run : runs) {
    auto priced = price(run);
    auto known = std::find_if(all.begin(), all.end(), [&](const Priced& other) {
      return run.gave_way.empty() && same_run(other, priced);
    });
    if (known == all.end())
      all.push_back(std::move(priced));
    else
      ++known->times;
  }
  return all;
}

const char* word_for(placement::How how) {
  switch (how) {
    case placement::How::Resident: return "resident";
    case placement::How::Streamed: return "streamed";
    case placement::How::OnDonor: return "on donor";
  }
  return "";
}

/// Bytes and blocks by device and way of use.
struct Held {
  std::int64_t bytes = 0;
  int blocks = 0;
};
std::map<std::pair<int, placement::How>, Held> held_of(const Priced& priced) {
  std::map<std::pair<int, placement::How>, Held> held_by_device;
  const auto& run = *priced.run;
  for (std::size_t i = 0; i < run.placement.blocks.size(); ++i) {
    auto& held = held_by_device[{run.placement.blocks[i].device, run.placement.blocks[i].how}];
    held.bytes += run.blocks.blocks[i].bytes;
    ++held.blocks;
  }
  return held_by_device;
}

Json as_json(const Priced& priced) {
  const auto& run = *priced.run;
  Json json{{"model", run.model},
            {"compute", run.compute},
            {"bytes", run.blocks.bytes()},
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
  for (const auto& [key, held] : held_of(priced))
    json["devices"].push_back({{"device", run.system.devices[key.first].name},
                               {"how", word_for(key.second)},
                               {"bytes", held.bytes},
                               {"blocks", held.blocks}});
  for (const auto& lane : priced.report.lanes)
    json["lanes"].push_back({{"lane", lane.name}, {"busy_s", lane.busy_s}, {"bytes", lane.bytes}});
  return json;
}

std::string duration(double seconds) {
  return seconds < 1 ? fmt::format("{:.2f} ms", seconds * 1e3) : fmt::format("{:.3f} s", seconds);
}

void print(const Priced& priced) {
  const auto& run = *priced.run;
  fmt::print("\n{} on {}: {}, {} blocks, {:.0f} step{}{}\n", run.model, run.compute,
             human_bytes(static_cast<double>(run.blocks.bytes())), run.blocks.blocks.size(),
             run.steps, run.steps == 1 ? "" : "s",
             priced.times > 1 ? fmt::format(", {} times", priced.times) : "");
  std::vector<std::vector<std::string>> rows{{"  weights", "size", "blocks", "how"}};
  for (const auto& [key, held] : held_of(priced))
    rows.push_back({"  " + run.system.devices[key.first].name,
                    human_bytes(static_cast<double>(held.bytes)), std::to_string(held.blocks),
                    word_for(key.second)});
  fmt::print("{}", format_table(rows, {1, 2}));
  rows = {{"  lane", "busy in a step", "carries"}};
  for (const auto& lane : priced.report.lanes)
    rows.push_back({"  " + lane.name, duration(lane.busy_s),
                    lane.bytes ? human_bytes(static_cast<double>(lane.bytes)) : ""});
  fmt::print("{}", format_table(rows, {1, 2}));
  fmt::print(
      "  step      {} (computing {}, waiting {}; no schedule of this placement is below {})\n",
      duration(priced.report.step_s), duration(priced.report.compute_s),
      duration(priced.report.wait_s), duration(priced.report.bound_s));
  fmt::print("  all steps {}\n",
             human_seconds(priced.report.first_s + priced.report.step_s * (run.steps - 1)));
  auto peak = run.placement.peak_bytes() + run.others_bytes;
  fmt::print("  peak      {} on {} (weights {}, rings {}, activations {}{})\n",
             human_bytes(static_cast<double>(peak)), run.compute,
             human_bytes(static_cast<double>(run.placement.bytes[run.system.compute])),
             human_bytes(static_cast<double>(run.placement.ring_bytes())),
             human_bytes(static_cast<double>(run.placement.activation_bytes)),
             run.others_bytes
                 ? ", other models " + human_bytes(static_cast<double>(run.others_bytes))
                 : "");
  if (!run.gave_way.empty()) fmt::print("  unloads   {}\n", fmt::join(run.gave_way, ", "));
  fmt::print("  this is   {}\n", placement::expert_string(run.system, run.blocks, run.placement));
  if (priced.best_step_s < priced.report.step_s * 0.995)
    fmt::print("  better    {}: {} a step\n",
               placement::expert_string(run.system, run.blocks, priced.best),
               duration(priced.best_step_s));
}

int plan(const Options& options) {
  auto text = workflow_text(options.workflow);
  auto machine = options.machine;
  std::optional<Rig> rig;
  if (!machine.rig.empty()) rig = read_rig(machine.rig);
  auto app = make_app(machine, std::move(rig), true);
  Workflow workflow(*app, text, options.workflow, machine.sets);
  auto result = workflow.run_silently();
  if (result.status != graph::RunStatus::Success) rethrow_with_node(result);

  const auto all = price_all(app->engine.planned_runs());
  if (options.json) {
    Json json = Json::array();
    for (const auto& priced : all) json.push_back(as_json(priced));
    std::cout << json.dump(2) << '\n';
  } else {
    for (const auto& priced : all) print(priced);
    if (all.empty()) fmt::print("nothing in this workflow uses a model\n");
  }
  if (options.svg.empty() || all.empty()) return 0;
  auto slowest = std::max_element(all.begin(), all.end(), [](const Priced& a, const Priced& b) {
    return a.report.step_s * a.run->steps < b.report.step_s * b.run->steps;
  });
  write_file(options.svg, placement::draw_svg(slowest->run->blocks, slowest->report));
  log::info("the steps of {} are drawn in {}", slowest->run->model, options.svg);
  return 0;
}

}  // namespace

void add_plan_command(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "plan", "Predict time and memory of a workflow: no weights are read, no GPU is needed");
  command->fallthrough();
  command->add_option("workflow", options->workflow, "workflow.json, or a picture that carries one")
      ->required();
  command->add_option("--set", options->machine.sets, "Change an input: NODE.INPUT=VALUE");
  declare(*command, options->machine);
  command->add_option("--svg", options->svg,
                      "Draw the steps of the model that takes longest: compute and links as lanes");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &chosen] { chosen = [options] { return plan(*options); }; });
}

}  // namespace distorch::cli
