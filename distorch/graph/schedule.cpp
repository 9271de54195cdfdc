#include "distorch/graph/schedule.h"

namespace distorch::graph {

bool Schedule::add(const std::string& id, bool is_output, bool background) {
  if (!index_.emplace(id, next_).second) return false;
  nodes_[next_] = {id, is_output, background, {}, {}};
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

std::optional<std::string> Schedule::pick() const {
  if (ready_.empty()) return std::nullopt;
  for (std::size_t i : ready_)
    if (nodes_.at(i).background) return nodes_.at(i).id;
  for (std::size_t i : ready_)
    if (is_output(i)) return nodes_.at(i).id;
  for (std::size_t i : ready_)
    for (std::size_t next : nodes_.at(i).blocks)
      if (is_output(next)) return nodes_.at(i).id;
  for (std::size_t i : ready_)
    for (std::size_t next : nodes_.at(i).blocks)
      for (std::size_t after : nodes_.at(next).blocks)
        if (is_output(after)) return nodes_.at(i).id;
  return nodes_.at(*ready_.begin()).id;
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
