#include "distorch/cli/prompt_time.h"

#include <algorithm>
#include <utility>

namespace distorch::cli {

using graph::Json;

namespace {

double seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

/// The node that a value of an input links to; "" where it is a constant.
std::string linked(const Json& value) {
  bool link = value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_number();
  return link ? value[0].get<std::string>() : "";
}

}  // namespace

Json as_json(const NodeSeconds& seconds) {
  Json json = Json::object();
  for (const auto& [node, known] : seconds) json[node] = known ? Json(*known) : Json();
  return json;
}

std::set<std::string> nodes_to_run(const Json& prompt, const std::vector<std::string>& outputs,
                                   const std::set<std::string>& cached) {
  std::set<std::string> found;
  auto open = outputs;
  while (!open.empty()) {
    auto id = std::move(open.back());
    open.pop_back();
    auto node = prompt.find(id);
    if (cached.contains(id) || node == prompt.end() || !node->is_object()) continue;
    if (!found.insert(id).second || !node->contains("inputs")) continue;
    for (const auto& value : (*node)["inputs"])
      if (auto source = linked(value); !source.empty()) open.push_back(std::move(source));
  }
  return found;
}

PromptTime::PromptTime(Json prompt, std::vector<std::string> outputs)
    : prompt_(std::move(prompt)),
      outputs_(std::move(outputs)),
      needed_(nodes_to_run(prompt_, outputs_, {})) {}

void PromptTime::note(const graph::Event& event) {
  if (const auto* cached = std::get_if<graph::ExecutionCached>(&event)) {
    needed_ = nodes_to_run(prompt_, outputs_, {cached->nodes.begin(), cached->nodes.end()});
  } else if (const auto* executing = std::get_if<graph::Executing>(&event)) {
    running_ = executing->node.value_or("");
    began_.try_emplace(running_, Clock::now());
  } else if (const auto* state = std::get_if<graph::ProgressState>(&event)) {
    for (const auto& node : state->nodes)
      if (node.state == "finished") finished_.insert(node.node_id);
  }
}

std::optional<double> PromptTime::left_of(const std::string& node,
                                          const std::optional<double>& planned,
                                          std::optional<double> running_s,
                                          Clock::time_point now) const {
  if (node == running_ && running_s) return running_s;
  if (!planned) return {};
  auto began = began_.find(node);
  auto passed = began == began_.end() ? 0 : seconds(now - began->second);
  return std::max(0.0, *planned - passed);
}

PromptTime::Left PromptTime::left(const NodeSeconds& planned, std::optional<double> running_s,
                                  Clock::time_point now) const {
  Left left;
  double sum = 0;
  for (const auto& [node, known] : planned) {
    if (!needed_.contains(node) || finished_.contains(node)) continue;
    ++left.nodes;
    if (auto one = left_of(node, known, running_s, now))
      sum += *one;
    else
      left.unknown.push_back(node);
  }
  if (left.nodes == 0 || left.unknown.size() < left.nodes) left.seconds = sum;
  return left;
}

}  // namespace distorch::cli
