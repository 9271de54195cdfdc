#pragma once
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "distorch/graph/pace.h"

namespace distorch::graph {

/// Which node of a run comes next. Nodes wait for the nodes they are blocked by; more of both may
/// be added while the run goes on (lazy inputs, expansion).
class Schedule {
 public:
  /// True when the node was new. Background nodes come first: others run while they wait.
  bool add(const std::string& id, bool is_output, bool background = false, Pace pace = Pace::Usual);
  bool contains(const std::string& id) const { return index_.count(id) != 0; }
  /// `to` waits for `from`; both must have been added.
  void block(const std::string& from, const std::string& to);
  bool empty() const { return index_.empty(); }
  /// A node that waits for nothing: an output node first, else one that feeds an output node, else
  /// one two steps before one, else the first added. nullopt when all wait for each other.
  std::optional<std::string> pick() const;
  /// The node is done: those that wait for it wait no more.
  void finish(const std::string& id);
  std::vector<std::string> remaining() const;
  /// Those that wait for this one, directly or by others, the nearest first.
  std::vector<std::string> after(const std::string& id) const;
  /// The node is not picked until resume().
  void suspend(const std::string& id) { ready_.erase(index_.at(id)); }
  void resume(const std::string& id) { ready_.insert(index_.at(id)); }
  /// Where pick() finds none and none is suspended: nodes of which each waits for the next and the
  /// last for the first.
  std::vector<std::string> circle() const;

 private:
  struct Node {
    std::string id;
    bool is_output = false, background = false;
    Pace pace = Pace::Usual;
    std::set<std::size_t> blocked_by, blocks;
  };
  bool is_output(std::size_t order) const;
  std::optional<std::size_t> usual_pick() const;
  std::vector<std::size_t> behind(std::size_t order) const;

  std::map<std::size_t, Node> nodes_;  // by the order of adding
  std::unordered_map<std::string, std::size_t> index_;
  std::set<std::size_t> ready_;
  std::size_t next_ = 0;
};

}  // namespace distorch::graph
