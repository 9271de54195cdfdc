#pragma once
#include <memory>
#include <string>
#include <vector>

#include "distorch/graph/executor.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/published_model.h"

namespace distorch::cli {

/// A workflow that was read, converted, changed by --set and found valid.
class Workflow {
 public:
  /// Error(Usage) with every problem at once, Error(Format) for a broken file. `where` names the
  /// file.
  Workflow(nodes::App& app, const std::string& text, const std::string& where,
           const std::vector<std::string>& sets);

  /// Its nodes may download with these, which must outlive it.
  void allow(nodes::Downloads& downloads) { context_.set(downloads); }

  const graph::Json& prompt() const { return prompt_; }
  const graph::Catalog& catalog() const { return catalog_; }
  /// Every node runs, also the second time; models stay open until the next run is over.
  graph::RunResult run(graph::EventSink& sink);
  graph::RunResult run_silently();

 private:
  nodes::App& app_;
  graph::Catalog catalog_;
  graph::Context context_;
  graph::Json prompt_, workflow_;
  std::vector<std::string> outputs_;
  std::unique_ptr<graph::Executor> last_;  // holds the values of the last run
};

/// Throws what ended a run that did not succeed, with the node's id and class in its place.
[[noreturn]] void rethrow_with_node(const graph::RunResult& result);

}  // namespace distorch::cli
