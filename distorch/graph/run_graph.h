#pragma once
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "distorch/graph/cache.h"
#include "distorch/graph/executor.h"
#include "distorch/graph/validation.h"

namespace distorch::graph {

/// A node of a run: from the prompt, or made by another node.
struct RunNode {
  const Json* json = nullptr;
  const NodeType* type = nullptr;
  std::string parent, display;  // "" for nodes of the prompt
  /// Of a type whose inputs depend on what is given; null: those of the type.
  std::shared_ptr<const std::vector<Input>> live = nullptr;

  const std::vector<Input>& declared() const { return live ? *live : type->inputs; }
  const Json& inputs() const;
  /// Links on declared inputs.
  std::vector<std::pair<const Input*, PromptLink>> links() const;
};

/// The nodes of a run, which grow while nodes expand, and the cache key of each.
class RunGraph {
 public:
  /// `nonce` numbers the keys that equal no other.
  RunGraph(const Catalog& catalog, const RunRequest& request, std::uint64_t& nonce);

  bool contains(const std::string& id) const { return nodes_.count(id) != 0; }
  const RunNode* find(const std::string& id) const;
  const RunNode& at(const std::string& id) const { return nodes_.at(id); }
  const std::unordered_map<std::string, RunNode>& all() const { return nodes_; }

  /// These nodes of the prompt and everything they depend on, lazily too, in the order of the
  /// prompt.
  std::vector<std::string> closure(const std::vector<std::string>& outputs) const;
  /// The node of the prompt that `id` belongs to, and the node that a page shows for it.
  std::string visible(std::string id) const;
  std::string display(std::string id) const;
  /// "node 5 (KSampler)"
  std::string place_of(const std::string& id) const;
  /// "5 KSampler": under which results and states are kept.
  std::string owner_of(const std::string& id) const;

  /// Never fails: what cannot be told apart for sure equals nothing.
  CacheKey key_of(const std::string& id);
  /// The call's prompt, context and id, without inputs.
  Call::Inputs surroundings(const std::string& id) const;

  /// Whether no node ever equals this one, so that there is no use in keeping its result.
  bool never_equal(const std::string& id) const { return never_equal_.count(id) != 0; }

  /// Adds the graph that a call of node `id` made; local ids get `prefix`. Returns the ids of the
  /// output nodes in it.
  std::vector<std::string> expand(const std::string& id, const std::string& prefix,
                                  const Call& call);
  /// The value that an input of a made node holds (Call::hold); null where it is none.
  const Value* held_by(const RunNode& node, const Json& input) const;

 private:
  CacheKey make_key(const std::string& id);
  std::string change_value(const std::string& id, const RunNode& node);
  std::string unequal();
  Json made_node(const Json& node, const std::string& prefix, const Call& call);

  const Catalog& catalog_;
  const RunRequest& request_;
  std::uint64_t& nonce_;
  std::unordered_map<std::string, RunNode> nodes_;
  std::deque<Json> made_;  // nodes made by expansion
  std::unordered_map<std::string, CacheKey> keys_;
  std::unordered_set<std::string> never_equal_;
  std::unordered_map<std::uint64_t, Value> held_;
};

}  // namespace distorch::graph
