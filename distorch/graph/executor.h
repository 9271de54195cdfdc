#pragma once
#include <any>
#include <exception>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distorch/base/run_token.h"
#include "distorch/graph/cache.h"
#include "distorch/graph/catalog.h"
#include "distorch/graph/events.h"

namespace distorch::graph {

/// One prompt to run. It must have been validated: `outputs` are Validation::good_outputs.
struct RunRequest {
  Json prompt;
  std::vector<std::string> outputs;
  std::string prompt_id = "prompt";
  Json extra_pnginfo;                // {"workflow": ...} or null
  const Context* context = nullptr;  // must outlive the run
  /// Stops this run and no other, also before it begins; null: nobody can. Nodes find it in their
  /// context.
  std::shared_ptr<RunToken> token;
};

enum class RunStatus { Success, Error, Interrupted };

struct RunResult {
  RunStatus status = RunStatus::Success;
  Json outputs = Json::object();  // {node id: what it showed}, cached output nodes included
  // {node id: {"node_id", "display_node", "parent_node", "real_node_id"}}
  Json meta = Json::object();
  std::vector<std::string> executed;  // nodes that ran, in order
  // lifecycle messages, as the history keeps them
  std::vector<std::pair<std::string, Json>> messages;
  std::optional<ExecutionError> error;
  std::exception_ptr exception;  // what the node threw
};

/// Runs prompts one after the other and keeps results between them. Not for several threads at
/// once.
///
/// Every output slot carries a list of values; a node is called once for each index up to its
/// longest input list, shorter lists repeat their last element (a type with input_is_list is called
/// once with whole lists). A node that throws ends the run; what finished stays in the cache.
/// The run's token (distorch/base/run_token.h) is looked at before each call and at each progress
/// report, and by whatever asks throw_if_interrupted() meanwhile.
class Executor {
 public:
  explicit Executor(const Catalog& catalog, CacheMode mode = CacheMode::Classic,
                    std::size_t lru_size = 0)
      : catalog_(catalog), cache_(mode, lru_size) {}

  /// Never throws for what nodes do. Does not send the last `executing` with node null: it comes
  /// after the history is written, so its owner sends it (finished()).
  RunResult run(const RunRequest& request, EventSink& sink);

  /// Drops all results and node states: their memory is free once no one else holds it.
  void release();
  std::size_t cached() const { return cache_.size(); }

 private:
  friend class Run;
  const Catalog& catalog_;
  ResultCache cache_;
  std::map<std::string, std::any> states_;  // by "id type"
  std::uint64_t nonce_ = 0;                 // for results that equal no other
};

/// The message after which nothing more comes for this prompt.
Event finished(const std::string& prompt_id);

}  // namespace distorch::graph
