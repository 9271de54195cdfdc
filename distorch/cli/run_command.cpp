#include <fmt/format.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <memory>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/interrupt.h"
#include "distorch/base/log.h"
#include "distorch/cli/commands.h"
#include "distorch/cli/machine_options.h"
#include "distorch/cli/progress.h"
#include "distorch/graph/executor.h"
#include "distorch/graph/overrides.h"
#include "distorch/graph/ui_to_api.h"
#include "distorch/graph/validation.h"
#include "distorch/nodes/catalog.h"
#include "distorch/streaming/trace.h"

namespace distorch::cli {

namespace {

struct Options {
  MachineOptions machine;
  std::string workflow, profile;
  bool json = false, quiet = false;
};

/// Every problem of a prompt as one message; nothing is run then.
void throw_if_invalid(const graph::Validation& validation, const std::string& workflow) {
  auto lines = validation.lines();
  if (validation.clean()) return;
  std::string text = fmt::format("{} problem{} in the workflow, nothing was run", lines.size(), lines.size() == 1 ? "" : "s");
  for (const auto& line : lines) text += "\n  " + line;
  throw Error(ErrorKind::Usage, workflow, text);
}

[[noreturn]] void rethrow_with_node(const graph::RunResult& result) {
  if (result.status == graph::RunStatus::Interrupted)
    throw Error(ErrorKind::Interrupted, "", "interrupted; nothing half-written was left behind");
  auto place = result.error ? fmt::format("node {} ({})", result.error->node_id, result.error->node_type) : std::string("workflow");
  if (result.exception) {
    try {
      std::rethrow_exception(result.exception);
    } catch (const Error& error) {
      auto where = error.where().find("node ") == 0 ? error.where() : error.where().empty() ? place : place + ": " + error.where();
      // A bad value found while running is a failed run, not a wrong command line.
      auto kind = error.kind() == ErrorKind::Usage ? ErrorKind::Format : error.kind();
      throw Error(kind, where, error.sentence());
    } catch (const c10::Error& error) {
      throw Error(ErrorKind::Internal, place, error.what_without_backtrace());
    } catch (const std::exception& error) {
      throw Error(ErrorKind::Internal, place, error.what());
    }
  }
  throw Error(ErrorKind::Internal, place, result.error ? result.error->exception_message : "failed");
}

int run(const Options& options) {
  auto text = workflow_text(options.workflow);
  auto rig = install_rig(options.machine, false);
  auto app = make_app(options.machine, std::move(rig));
  graph::Catalog catalog;
  nodes::add_all(catalog, *app);

  graph::ConvertOptions convert;
  convert.where = options.workflow;
  auto prompt = graph::load_prompt(text, graph::Definitions(catalog), convert);
  for (const auto& note : prompt.notes) log::info("{}", note);
  graph::apply_overrides(prompt.nodes, options.machine.sets, catalog);

  auto context = app->context();
  auto validation = graph::validate(prompt.nodes, catalog, {.context = &context});
  throw_if_invalid(validation, options.workflow);

  std::unique_ptr<streaming::Trace> trace;
  if (!options.profile.empty()) trace = std::make_unique<streaming::Trace>();
  app->begin_prompt();
  graph::Executor executor(catalog);
  graph::RunRequest request;
  request.prompt = prompt.nodes;
  request.outputs = validation.good_outputs;
  request.extra_pnginfo = prompt.workflow.is_null() ? graph::Json() : graph::Json{{"workflow", prompt.workflow}};
  request.context = &context;
  request.clear_interrupt = false;
  auto reporter = make_reporter(options.json ? Reporting::Json : options.quiet ? Reporting::Quiet : Reporting::Bar, prompt.nodes,
                                app->settings);
  auto result = executor.run(request, *reporter);
  reporter->send(graph::finished(request.prompt_id));
  if (trace) write_file(options.profile, trace->to_json());
  if (result.status != graph::RunStatus::Success) rethrow_with_node(result);
  return 0;
}

}  // namespace

void add_run_command(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("run", "Run a workflow: ComfyUI's UI or API JSON, or a picture that carries one");
  command->add_option("workflow", options->workflow, "workflow.json, or a PNG made by ComfyUI or distorch")->required();
  command->add_option("--set", options->machine.sets, "Change an input: NODE.INPUT=VALUE, NODE by id, title or class (3.seed=42)");
  declare(*command, options->machine);
  command->add_flag("--disable-metadata", options->machine.disable_metadata, "Do not put the workflow into pictures");
  command->add_option("--profile", options->profile, "Write a trace for Perfetto or chrome://tracing");
  command->add_flag("--json", options->json, "Events as JSON lines on standard output");
  command->add_flag("--quiet", options->quiet, "No progress, only the names of what was written");
  command->callback([options, &chosen] { chosen = [options] { return run(*options); }; });
}

}  // namespace distorch::cli
