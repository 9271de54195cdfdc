#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "distorch/graph/value.h"

namespace distorch::graph {

/// What a run reports, one struct for each message of the websocket protocol. Times are
/// milliseconds since 1970.

struct ExecutionStart {
  std::string prompt_id;
  std::int64_t timestamp = 0;
};
struct ExecutionCached {
  std::string prompt_id;
  std::vector<std::string> nodes;  // answered from the cache
  std::int64_t timestamp = 0;
};
/// Where a node stands. For nodes made by expansion, display and real node are the visible node
/// they belong to.
struct NodeState {
  std::string node_id, display_node_id, real_node_id;
  std::optional<std::string> parent_node_id;
  double value = 0, max = 1;
  std::string state = "running";  // "finished", "error"
};
/// All nodes touched so far in this run.
struct ProgressState {
  std::string prompt_id;
  std::vector<NodeState> nodes;
};
/// Before a node runs; node absent: the run is over, whatever the outcome.
struct Executing {
  std::string prompt_id;
  std::optional<std::string> node;
  std::string display_node;
};
struct Progress {
  std::string prompt_id, node;
  double value = 0, max = 1;
};
/// `image` is what the node gave; the receiver encodes it. Sent before the Progress of the same
/// step.
struct Preview {
  std::string prompt_id;
  NodeState node;
  Value image;
};
/// A node showed something ({"images": [...]}); also an output node answered from the cache.
struct Executed {
  std::string prompt_id, node, display_node;
  Json output;  // null if it never had one
};
struct ExecutionSuccess {
  std::string prompt_id;
  std::int64_t timestamp = 0;
};
struct ExecutionError {
  std::string prompt_id, node_id, node_type;
  std::vector<std::string> executed;
  std::string exception_message;  // ends with a line break, advice after it
  std::string exception_type;
  std::vector<std::string> traceback;
  Json current_inputs = Json::object();
  std::vector<std::string> current_outputs;
  std::int64_t timestamp = 0;
};
struct ExecutionInterrupted {
  std::string prompt_id, node_id, node_type;
  std::vector<std::string> executed;
  std::int64_t timestamp = 0;
};

using Event =
    std::variant<ExecutionStart, ExecutionCached, ProgressState, Executing, Progress, Preview,
                 Executed, ExecutionSuccess, ExecutionError, ExecutionInterrupted>;

/// "execution_start", "progress", ...; "preview" for Preview, which has no text message of its own.
const char* type_of(const Event& event);
/// {"type": ..., "data": {...}} as the protocol has it; a Preview becomes its metadata without the
/// image.
Json to_json(const Event& event);

/// Receives the events of a run, in order, on the thread that runs it.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void send(const Event& event) = 0;
};

}  // namespace distorch::graph
