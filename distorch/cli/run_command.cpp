#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/cli/commands.h"
#include "distorch/cli/machine_options.h"
#include "distorch/cli/progress.h"
#include "distorch/cli/remote_run.h"
#include "distorch/cli/waterfall.h"
#include "distorch/cli/workflow_run.h"
#include "distorch/graph/overrides.h"
#include "distorch/nodes/catalog.h"
#include "distorch/streaming/trace.h"

namespace distorch::cli {

namespace {

struct Options {
  MachineOptions machine;
  std::string workflow, profile, waterfall, server, token;
  bool json = false, quiet = false;
};

Reporting reporting_of(const Options& options) {
  return options.json ? Reporting::Json : options.quiet ? Reporting::Quiet : Reporting::Bar;
}

/// --set needs the node types of this program.
void change(const Options& options, graph::Json& prompt) {
  if (options.machine.sets.empty()) return;
  auto app = make_app(options.machine, {}, true);
  graph::Catalog catalog;
  nodes::add_all(catalog, *app);
  graph::apply_overrides(prompt, options.machine.sets, catalog);
}

int run_on_server(const Options& options, const std::string& text) {
  if (!options.profile.empty() || !options.waterfall.empty())
    throw Error(ErrorKind::Usage, options.profile.empty() ? "--waterfall" : "--profile",
                "is of this process and does not go with --server");
  RemoteOptions remote;
  remote.server = options.server;
  remote.token = options.token;
  remote.output = options.machine.output;
  remote.reporting = reporting_of(options);
  remote.change = [&](graph::Json& prompt) { change(options, prompt); };
  return run_remotely(remote, text, options.workflow);
}

/// One run, with what its parts took.
graph::Json run_watched(Workflow& workflow, const nodes::App& app, graph::EventSink& reporter,
                        const std::string& title, const std::map<std::string, double>& before) {
  Waterfall waterfall(app.engine.machine(), workflow.catalog(), workflow.prompt(), reporter);
  for (const auto& [part, seconds] : before) waterfall.add(part, seconds);
  auto result = workflow.run(waterfall);
  if (result.status != graph::RunStatus::Success) rethrow_with_node(result);
  fmt::print(stderr, "{}", waterfall.text(title));
  return waterfall.json();
}

/// The first run of the process and another one, with the files read and models in place.
int run_twice(const Options& options, Workflow& workflow, const nodes::App& app,
              graph::EventSink& reporter, double started_s) {
  graph::Json runs;
  runs["cold"] = run_watched(
      workflow, app, reporter, "cold",
      {{"program start", started_s}, {"set-up", std::max(0.0, seconds_since_start() - started_s)}});
  runs["warm"] = run_watched(workflow, app, reporter, "warm", {});
  write_file(options.waterfall, runs.dump(1) + "\n");
  return 0;
}

int run(const Options& options) {
  const auto started_s = seconds_since_start();
  if (options.quiet) log::set_up("error");
  auto text = workflow_text(options.workflow);
  if (!options.server.empty()) return run_on_server(options, text);
  wake_device(options.machine);
  auto rig = install_rig(options.machine);
  auto app = make_app(options.machine, std::move(rig), false);
  const auto downloads = allowed_downloads(options.machine);
  Workflow workflow(*app, text, options.workflow, options.machine.sets);
  if (downloads) workflow.allow(*downloads);

  auto reporter = make_reporter(reporting_of(options), workflow.prompt(), app->settings);
  if (!options.waterfall.empty()) return run_twice(options, workflow, *app, *reporter, started_s);
  std::unique_ptr<streaming::Trace> trace;
  if (!options.profile.empty()) trace = std::make_unique<streaming::Trace>();
  auto result = workflow.run(*reporter);
  if (trace) write_file(options.profile, trace->to_json());
  if (result.status != graph::RunStatus::Success) rethrow_with_node(result);
  return 0;
}

}  // namespace

void add_run_command(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "run", "Run a workflow: ComfyUI's UI or API JSON, or a picture or video that carries one");
  command->fallthrough();
  command
      ->add_option("workflow", options->workflow,
                   "workflow.json, or a PNG or video made by ComfyUI or distorch")
      ->required();
  command->add_option("--set", options->machine.sets,
                      "Change an input: NODE.INPUT=VALUE, NODE by id, title or class (3.seed=42)");
  declare(*command, options->machine);
  declare_downloads(*command, options->machine);
  command->add_flag("--disable-metadata", options->machine.disable_metadata,
                    "Do not put the workflow into pictures");
  command
      ->add_option("--preview-method", options->machine.preview_method,
                   "Pictures of the latent while sampling: none, auto, latent2rgb, taesd")
      ->check(CLI::IsMember({"none", "auto", "latent2rgb", "taesd"}))
      ->capture_default_str();
  auto* profile = command->add_option("--profile", options->profile,
                                      "Write a trace for Perfetto or chrome://tracing");
  command
      ->add_option("--waterfall", options->waterfall,
                   "Run twice, cold and warm; print and write what each part takes, beside its "
                   "limit where one is known")
      ->excludes(profile);
  command->add_flag("--json", options->json, "Events as JSON lines on standard output");
  command->add_flag("--quiet", options->quiet,
                    "Print only the names of what was written, and errors");
  command->add_option("--server", options->server,
                      "Run it on a server (http://host:8188); what it saves comes to --output");
  command->add_option("--auth-token", options->token, "What that server wants to be shown")
      ->envname("DISTORCH_AUTH_TOKEN");
  command->callback([options, &chosen] { chosen = [options] { return run(*options); }; });
}

}  // namespace distorch::cli
