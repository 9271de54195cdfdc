#pragma once
#include <optional>
#include <string>
#include <vector>

#include "distorch/graph/catalog.h"

namespace distorch::graph {

/// One thing that is wrong with a node, in the words of the server protocol plus a sentence for
/// people.
struct Problem {
  std::string type;     // "required_input_missing", "value_not_in_list", ...
  std::string message;  // "Required input is missing"
  std::string details;
  Json extra_info = Json::object();
  std::string input;  // "" when it concerns the whole node
  std::string line;   // "Value not in list: 'eulr' is none of 42 choices. Did you mean 'euler'?"
};

struct NodeProblems {
  std::string node_id, class_type;
  std::vector<Problem> problems;
  std::vector<std::string> dependent_outputs;  // output nodes that cannot run because of this node
};

struct Validation {
  /// Set when nothing can run: {"type", "message", "details", "extra_info"}; null otherwise.
  Json error;
  std::vector<std::string> good_outputs;  // output nodes that can run, in the prompt's order
  std::vector<std::string> bad_outputs;
  std::vector<NodeProblems> nodes;  // only nodes with problems of their own

  /// At least one output can run.
  bool can_run() const { return error.is_null(); }
  /// Everything is fine.
  bool clean() const { return can_run() && nodes.empty(); }
  /// {id: {"errors", "dependent_outputs", "class_type"}}; {} after a structural error, as servers
  /// answer it.
  Json node_errors() const;
  /// All problems, one line each: "node 5 (KSampler) input sampler_name: Value not in list: ...".
  std::vector<std::string> lines() const;
};

struct ValidateOptions {
  /// Only these output nodes count (partial_execution_targets).
  std::optional<std::vector<std::string>> targets;
  const Context* context = nullptr;  // for the nodes' own checks
};

/// Checks a prompt ({id: {class_type, inputs}}) and converts constants in place ("32" -> 32 for
/// INT, {"__value__"} is unwrapped, a path of Windows becomes the choice with slashes), so that what is executed, cached and stored is what was
/// checked. Looks at each output node and everything it needs, and reports every problem found.
/// Never throws for bad prompts.
Validation validate(Json& prompt, const Catalog& catalog, const ValidateOptions& options = {});

/// The link that an input value is: [node id, slot]; nullopt for a constant.
struct PromptLink {
  std::string node;
  std::size_t slot = 0;
};
std::optional<PromptLink> as_link(const Json& value);

/// A constant as the type wants it: INT, FLOAT, STRING, BOOLEAN; other types come back unchanged.
/// On failure returns nullopt and says why in `reason`. INT holds -2^63 .. 2^64-1; 2^64 itself,
/// which browsers make of the largest seeds, becomes 2^64-1.
std::optional<Json> convert_constant(const Json& value, const std::string& type,
                                     std::string& reason);

}  // namespace distorch::graph
