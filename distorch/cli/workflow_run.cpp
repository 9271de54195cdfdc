#include "distorch/cli/workflow_run.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/graph/overrides.h"
#include "distorch/graph/ui_to_api.h"
#include "distorch/graph/validation.h"
#include "distorch/nodes/catalog.h"

namespace distorch::cli {

namespace {

class NoEvents final : public graph::EventSink {
 public:
  void send(const graph::Event&) override {}
};

}  // namespace

Workflow::Workflow(nodes::App& app, const std::string& text, const std::string& where,
                   const std::vector<std::string>& sets)
    : app_(app), context_(app.context()) {
  nodes::add_all(catalog_, app);
  graph::ConvertOptions convert;
  convert.where = where;
  auto prompt = graph::load_prompt(text, graph::Definitions(catalog_), convert);
  for (const auto& note : prompt.notes) log::info("{}", note);
  graph::apply_overrides(prompt.nodes, sets, catalog_);
  auto validation = graph::validate(prompt.nodes, catalog_, {.targets = {}, .context = &context_});
  if (!validation.clean()) {
    auto lines = validation.lines();
    auto message = fmt::format("{} problem{} in the workflow, nothing was run", lines.size(),
                               lines.size() == 1 ? "" : "s");
    for (const auto& line : lines) message += "\n  " + line;
    throw Error(ErrorKind::Format, where, message);
  }
  prompt_ = std::move(prompt.nodes);
  workflow_ = std::move(prompt.workflow);
  outputs_ = std::move(validation.good_outputs);
}

graph::RunResult Workflow::run(graph::EventSink& sink) {
  auto executor = std::make_unique<graph::Executor>(catalog_);
  graph::RunRequest request;
  request.prompt = prompt_;
  request.outputs = outputs_;
  if (!workflow_.is_null()) request.extra_pnginfo = graph::Json{{"workflow", workflow_}};
  request.context = &context_;
  request.token = current_run();  // Ctrl-C reaches it
  auto result = executor->run(request, sink);
  last_ = std::move(executor);
  sink.send(graph::finished(request.prompt_id));
  return result;
}

graph::RunResult Workflow::run_silently() {
  NoEvents none;
  return run(none);
}

void rethrow_with_node(const graph::RunResult& result) {
  if (result.status == graph::RunStatus::Interrupted)
    throw Error(ErrorKind::Interrupted, "", "interrupted; nothing half-written was left behind");
  auto place = result.error
                   ? fmt::format("node {} ({})", result.error->node_id, result.error->node_type)
                   : std::string("workflow");
  if (!result.exception)
    throw Error(ErrorKind::Internal, place,
                result.error ? result.error->exception_message : "failed");
  try {
    std::rethrow_exception(result.exception);
  } catch (const Error& error) {
    bool named = error.where().rfind("node ", 0) == 0;
    auto where = named                   ? error.where()
                 : error.where().empty() ? place
                                         : place + ": " + error.where();
    // A bad value found while running is a failed run, not a wrong command line.
    throw Error(error.kind() == ErrorKind::Usage ? ErrorKind::Format : error.kind(), where,
                error.sentence());
  } catch (const c10::OutOfMemoryError& error) {
    throw Error(ErrorKind::OutOfMemory, place, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::OutOfMemory, place, "out of memory (RAM)");
  } catch (const c10::Error& error) {
    throw Error(ErrorKind::Internal, place, error.what_without_backtrace());
  } catch (const std::exception& error) {
    throw Error(ErrorKind::Internal, place, error.what());
  }
}

}  // namespace distorch::cli
