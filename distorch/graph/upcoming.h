#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "distorch/graph/pace.h"
#include "distorch/graph/value.h"

namespace distorch::graph {

struct NodeType;

/// What of a run is still to come, as a node finds it in its context. Not for background nodes.
class Upcoming {
 public:
  struct Node {
    const NodeType* type = nullptr;
    /// What is known of its inputs by now; of a list its first element.
    std::map<std::string, Value> values;
  };
  virtual ~Upcoming() = default;
  /// The nodes that wait for node `id`, directly or by others, the nearest first.
  virtual std::vector<Node> after(const std::string& id) = 0;
};

/// How long nodes of a type take, as whoever made the types knows it; found in a run's context.
struct Paces {
  std::function<Pace(const NodeType&)> of;
};

}  // namespace distorch::graph
