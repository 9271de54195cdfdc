#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/base/run_token.h"
#include "distorch/graph/executor.h"
#include "distorch/graph/validation.h"
#include "distorch/server/engine_numbers.h"
#include "distorch/server/job.h"

namespace distorch::server {

/// What a server needs of the engine, so that it runs with any set of nodes.
class PromptRunner {
 public:
  virtual ~PromptRunner() = default;

  /// Checks a prompt and converts its constants in place. From any thread, also during run().
  virtual graph::Validation validate(Json& prompt,
                                     std::optional<std::vector<std::string>> targets) = 0;
  /// Runs a job on the calling thread, one at a time; results are kept from one to the next. Throws
  /// nothing for what nodes do (graph::RunResult says it).
  virtual graph::RunResult run(const Job& job, const std::shared_ptr<RunToken>& token,
                               graph::EventSink& sink) = 0;
  /// Gives back the memory of models, and of results kept. Never during run().
  virtual void release(bool models, bool results) = 0;
  /// While another prompt runs: this one comes next. Checks it, reads its files ahead and says what
  /// it would take, as MachineView::plan does; null where nothing can be said. Throws where it could
  /// not run now. From a thread of its own; `token` says when nobody wants to know any more.
  virtual Json look_ahead(const Job& /*job*/, const std::shared_ptr<RunToken>& /*token*/) {
    return nullptr;
  }
  /// The same of a prompt that runs already and was not looked at before: what it takes as a whole.
  virtual Json predict(const Job& /*job*/, const std::shared_ptr<RunToken>& /*token*/) {
    return nullptr;
  }
};

/// What only this engine can tell. From any thread.
class MachineView {
 public:
  virtual ~MachineView() = default;
  /// Devices with their memory, as GET /distorch/devices answers.
  virtual Json devices() = 0;
  /// What the engine counted so far; waits for no load.
  virtual EngineNumbers numbers() { return {}; }
  /// What a validated prompt would take: its models, where they would rest, seconds and bytes.
  virtual Json plan(const Json& prompt, const std::vector<std::string>& outputs) = 0;
};

}  // namespace distorch::server
