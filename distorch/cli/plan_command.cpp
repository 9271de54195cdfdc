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
#include "distorch/cli/form_advice.h"
#include "distorch/cli/machine_options.h"
#include "distorch/cli/plan_report.h"
#include "distorch/cli/table.h"
#include "distorch/cli/workflow_run.h"
#include "distorch/placement/drawing.h"
#include "distorch/placement/tables.h"
#include "distorch/placement/timeline.h"

namespace distorch::cli {

namespace {

using graph::Json;

struct Options {
  MachineOptions machine;
  std::string workflow, svg;
  bool json = false;
};

std::string duration(double seconds) {
  return seconds < 1 ? fmt::format("{:.2f} ms", seconds * 1e3) : fmt::format("{:.3f} s", seconds);
}

void print(const Priced& priced, const std::vector<OtherForm>& forms) {
  const auto& run = *priced.run;
  fmt::print("\n{} on {}: {}, {} blocks, {:.0f} step{}{}\n", run.model, run.compute,
             human_bytes(static_cast<double>(run.blocks.bytes() + run.blocks.aside_bytes())),
             run.blocks.blocks.size(), run.steps, run.steps == 1 ? "" : "s",
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
  if (const auto aside = run.blocks.aside_bytes(); aside > 0)
    fmt::print(
        "  aside     {} have no part in a step: what needs them brings them, once for all steps\n",
        human_bytes(static_cast<double>(aside)));
  if (!run.gave_way.empty()) fmt::print("  unloads   {}\n", fmt::join(run.gave_way, ", "));
  fmt::print("  this is   {}{}\n", placement::expert_string(run.system, run.blocks, run.placement),
             run.blocks.aside_bytes() > 0 ? " without what is aside" : "");
  if (run.beside) fmt::print("  beside    it computes while the run before it does\n");
  if (auto reason = priced.reason(); !reason.empty()) fmt::print("  why       {}\n", reason);
  if (priced.best_step_s < priced.report.step_s * 0.995)
    fmt::print("  better    {}: {} a step\n",
               placement::expert_string(run.system, run.blocks, priced.best),
               duration(priced.best_step_s));
  if (!forms.empty())
    fmt::print("  another form: {} (distorch convert FILE NEW --type {})\n", forms_text(forms),
               forms[0].name);
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
  auto forms_of = [&](const Priced& priced) {
    return faster_forms(priced, bits_of_model(app->folders, priced.run->model),
                        app->engine.speeds(priced.run->compute).memory_bytes_per_s);
  };
  if (options.json) {
    Json json = Json::array();
    for (const auto& priced : all) {
      auto& entry = json.emplace_back(as_json(priced));
      for (const auto& form : forms_of(priced))
        entry["faster_forms"].push_back({{"form", form.name},
                                         {"bits", form.bits},
                                         {"step_s", form.step_s},
                                         {"times", form.times}});
    }
    std::cout << json.dump(2) << '\n';
  } else {
    for (const auto& priced : all) print(priced, forms_of(priced));
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
  command
      ->add_option("workflow", options->workflow,
                   "workflow.json, or a picture or video that carries one")
      ->required();
  command->add_option("--set", options->machine.sets, "Change an input: NODE.INPUT=VALUE");
  declare(*command, options->machine);
  command->add_option("--svg", options->svg,
                      "Draw the steps of the model that takes longest: compute and links as lanes");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &chosen] { chosen = [options] { return plan(*options); }; });
}

}  // namespace distorch::cli
