#include <memory>

#include "distorch/base/atomic_file.h"
#include "distorch/base/log.h"
#include "distorch/cli/commands.h"
#include "distorch/cli/machine_options.h"
#include "distorch/cli/progress.h"
#include "distorch/cli/workflow_run.h"
#include "distorch/streaming/trace.h"

namespace distorch::cli {

namespace {

struct Options {
  MachineOptions machine;
  std::string workflow, profile;
  bool json = false, quiet = false;
};

int run(const Options& options) {
  if (options.quiet) log::set_up("error");
  auto text = workflow_text(options.workflow);
  auto rig = install_rig(options.machine);
  auto app = make_app(options.machine, std::move(rig), false);
  Workflow workflow(*app, text, options.workflow, options.machine.sets);

  std::unique_ptr<streaming::Trace> trace;
  if (!options.profile.empty()) trace = std::make_unique<streaming::Trace>();
  auto kind = options.json ? Reporting::Json : options.quiet ? Reporting::Quiet : Reporting::Bar;
  auto reporter = make_reporter(kind, workflow.prompt(), app->settings);
  auto result = workflow.run(*reporter);
  if (trace) write_file(options.profile, trace->to_json());
  if (result.status != graph::RunStatus::Success) rethrow_with_node(result);
  return 0;
}

}  // namespace

void add_run_command(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "run", "Run a workflow: ComfyUI's UI or API JSON, or a picture that carries one");
  command->fallthrough();
  command
      ->add_option("workflow", options->workflow,
                   "workflow.json, or a PNG made by ComfyUI or distorch")
      ->required();
  command->add_option("--set", options->machine.sets,
                      "Change an input: NODE.INPUT=VALUE, NODE by id, title or class (3.seed=42)");
  declare(*command, options->machine);
  command->add_flag("--disable-metadata", options->machine.disable_metadata,
                    "Do not put the workflow into pictures");
  command
      ->add_option("--preview-method", options->machine.preview_method,
                   "Pictures of the latent while sampling: none, auto, latent2rgb, taesd")
      ->check(CLI::IsMember({"none", "auto", "latent2rgb", "taesd"}))
      ->capture_default_str();
  command->add_option("--profile", options->profile,
                      "Write a trace for Perfetto or chrome://tracing");
  command->add_flag("--json", options->json, "Events as JSON lines on standard output");
  command->add_flag("--quiet", options->quiet,
                    "Print only the names of what was written, and errors");
  command->callback([options, &chosen] { chosen = [options] { return run(*options); }; });
}

}  // namespace distorch::cli
