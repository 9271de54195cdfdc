#include "distorch/graph/schedule.h"

#include <algorithm>

namespace distorch::graph {

bool Schedule::add(const std::string& id, bool is_output, bool background, Pace pace) {
  if (!index_.emplace(id, next_).second) return false;
  nodes_[next_] = {id, is_output, background, pace, {}, {}};
  ready_.insert(next_++);
  return true;
}

void Schedule::block(const std::string& from, const std::string& to) {
  std::size_t source = index_.at(from), target = index_.at(to);
  nodes_[source].blocks.insert(target);
  nodes_[target].blocked_by.insert(source);
  ready_.erase(target);
}

bool Schedule::is_output(std::size_t order) const { return nodes_.at(order).is_output; }

/// Those that wait for a node, the nearest first.
std::vector<std::size_t> Schedule::behind(std::size_t order) const {
  std::vector<std::size_t> found;
  std::set<std::size_t> seen = {order};
  auto add_next = [&](std::size_t from) {
    for (std::size_t next : nodes_.at(from).blocks)
      if (nodes_.count(next) && seen.insert(next).second) found.push_back(next);
  };
  add_next(order);
  for (std::size_t i = 0; i < found.size(); ++i) add_next(found[i]);
  return found;
}

std::vector<std::string> Schedule::after(const std::string& id) const {
  std::vector<std::string> ids;
  auto found = index_.find(id);
  if (found == index_.end()) return ids;
  for (std::size_t order : behind(found->second)) ids.push_back(nodes_.at(order).id);
  return ids;
}

std::optional<std::string> Schedule::pick() const {
  auto first = usual_pick();
  if (!first) return std::nullopt;
  if (nodes_.at(*first).pace != Pace::Long) return nodes_.at(*first).id;
  auto later = behind(*first);
  std::sort(later.begin(), later.end());
  for (std::size_t i : ready_) {
    if (nodes_.at(i).pace != Pace::Quick) continue;
    for (std::size_t next : behind(i))
      if (std::binary_search(later.begin(), later.end(), next)) return nodes_.at(i).id;
  }
  return nodes_.at(*first).id;
}

std::optional<std::size_t> Schedule::usual_pick() const {
  if (ready_.empty()) return std::nullopt;
  for (std::size_t i : ready_)
    if (nodes_.at(i).background) return i;
  for (std::size_t i : ready_)
    if (is_output(i)) return i;
  for (std::size_t i : ready_)
    for (std::size_t next : nodes_.at(i).blocks)
      if (is_output(next)) return i;
  for (std::size_t i : ready_)
    for (std::size_t next : nodes_.at(i).blocks)
      for (std::size_t after : nodes_.at(next).blocks)
        if (is_output(after)) return i;
  return *ready_.begin();
}

void Schedule::finish(const std::string& id) {
  std::size_t done = index_.at(id);
  for (std::size_t waiting : nodes_[done].blocks) {
    auto found = nodes_.find(waiting);
    if (found == nodes_.end()) continue;
    found->second.blocked_by.erase(done);
    if (found->second.blocked_by.empty()) ready_.insert(waiting);
  }
  ready_.erase(done);
  nodes_.erase(done);
  index_.erase(id);
}

std::vector<std::string> Schedule::circle() const {
  std::vector<std::string> path;
  std::unordered_map<std::size_t, std::size_t> places;
  if (nodes_.empty()) return path;
  for (std::size_t at = nodes_.begin()->first; places.emplace(at, path.size()).second;) {
    const Node& node = nodes_.at(at);
    path.push_back(node.id);
    if (node.blocked_by.empty()) return {};
    at = *node.blocked_by.begin();
    if (places.count(at)) {
      path.erase(path.begin(), path.begin() + static_cast<std::ptrdiff_t>(places[at]));
      break;
    }
  }
  return path;
}

std::vector<std::string> Schedule::remaining() const {
  std::vector<std::string> ids;
  for (auto& [order, node] : nodes_) ids.push_back(node.id);
  return ids;
}

}  // namespace distorch::graph
