#include "distorch/graph/run_graph.h"

#include <fmt/format.h>

#include <unordered_set>

#include "distorch/base/log.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/graph/json_text.h"

namespace distorch::graph {
namespace {

constexpr std::size_t kMaxNodes = 100'000;  // that one prompt may grow to
// The key under which an input of a made node has the number of the value that it holds.
constexpr const char* kHeld = "__held__";

RunNode with_live_inputs(RunNode node) {
  node.live = live_inputs(*node.type, node.inputs());
  return node;
}

}  // namespace

const Json& RunNode::inputs() const {
  static const Json none = Json::object();
  auto found = json->find("inputs");
  return found != json->end() && found->is_object() ? *found : none;
}

std::vector<std::pair<const Input*, PromptLink>> RunNode::links() const {
  std::vector<std::pair<const Input*, PromptLink>> result;
  const Json& given = inputs();
  for (auto& input : declared()) {
    auto found = given.find(input.name);
    if (found == given.end()) continue;
    if (auto link = as_link(*found)) result.emplace_back(&input, std::move(*link));
  }
  return result;
}

RunGraph::RunGraph(const Catalog& catalog, const RunRequest& request, std::uint64_t& nonce)
    : catalog_(catalog), request_(request), nonce_(nonce) {
  if (!request.prompt.is_object()) return;
  for (auto& [id, json] : request.prompt.items()) {
    if (!json.is_object() || !json.contains("class_type") || !json["class_type"].is_string())
      continue;
    const NodeType* type = catalog.find(json["class_type"].get<std::string>());
    if (type) nodes_[id] = with_live_inputs({&json, type, "", ""});
  }
}

const RunNode* RunGraph::find(const std::string& id) const {
  auto found = nodes_.find(id);
  return found == nodes_.end() ? nullptr : &found->second;
}

std::vector<std::string> RunGraph::closure(const std::vector<std::string>& outputs) const {
  std::vector<std::string> stack = outputs, ordered;
  std::unordered_set<std::string> seen;
  while (!stack.empty()) {
    std::string id = stack.back();
    stack.pop_back();
    const RunNode* node = find(id);
    if (!node || !seen.insert(id).second) continue;
    for (auto& [input, link] : node->links()) stack.push_back(link.node);
  }
  for (auto& [id, json] : request_.prompt.items())
    if (seen.count(id)) ordered.push_back(id);
  return ordered;
}

std::string RunGraph::visible(std::string id) const {
  for (auto* node = find(id); node && !node->parent.empty(); node = find(id)) id = node->parent;
  return id;
}

std::string RunGraph::display(std::string id) const {
  int steps = 0;  // overridden display ids may point anywhere, in a circle too
  for (auto* node = find(id); node && !node->display.empty() && ++steps < 1000; node = find(id))
    id = node->display;
  return id;
}

std::string RunGraph::place_of(const std::string& id) const {
  const RunNode* node = find(id);
  return node ? fmt::format("node {} ({})", id, node->type->name) : "node " + id;
}

std::string RunGraph::owner_of(const std::string& id) const { return id + " " + at(id).type->name; }

Call::Inputs RunGraph::surroundings(const std::string& id) const {
  Call::Inputs given;
  given.node_id = id;
  given.prompt = &request_.prompt;
  given.extra_pnginfo = &request_.extra_pnginfo;
  given.context = request_.context;
  given.find_node = [this](const std::string& other) {
    const RunNode* node = find(other);
    return node ? node->json : nullptr;
  };
  return given;
}

CacheKey RunGraph::key_of(const std::string& start) {
  std::vector<std::string> stack{start};
  std::unordered_set<std::string> open;
  while (!stack.empty()) {
    std::string id = stack.back();
    auto found = nodes_.find(id);
    bool first = !keys_.count(id) && found != nodes_.end() && open.insert(id).second;
    bool waiting = false;
    if (first)
      for (auto& [name, value] : found->second.inputs().items())
        if (auto link = as_link(value);
            link && !keys_.count(link->node) && !open.count(link->node)) {
          stack.push_back(link->node);
          waiting = true;
        }
    if (waiting) continue;
    if (!keys_.count(id)) keys_[id] = make_key(id);
    stack.pop_back();
  }
  return keys_.at(start);
}

CacheKey RunGraph::make_key(const std::string& id) {
  KeyBuilder builder;
  const std::uint64_t nonce_before = nonce_;
  auto found = nodes_.find(id);
  if (found == nodes_.end()) {
    builder.add(unequal());
    never_equal_.insert(id);
    return builder.key();
  }
  const RunNode& node = found->second;
  bool alone = false;
  builder.add(node.type->name);
  builder.add(change_value(id, node));
  bool own_id = node.type->not_idempotent;
  for (auto& hidden : node.type->hidden) own_id = own_id || hidden.type == "UNIQUE_ID";
  builder.add(own_id ? id : std::string());
  std::map<std::string, const Json*> sorted;
  for (auto& [name, value] : node.inputs().items()) sorted[name] = &value;
  for (auto& [name, value] : sorted) {
    builder.add(name);
    auto link = as_link(*value);
    builder.add(link ? "link" : json_line(*value));
    alone = alone || held_by(node, *value);
    if (!link) continue;
    alone = alone || never_equal(link->node);
    auto source = keys_.find(link->node);
    builder.add(source == keys_.end() ? unequal() : std::string());  // a circle: never equal
    if (source != keys_.end()) builder.add(source->second);
    builder.add(std::to_string(link->slot));
  }
  if (alone || nonce_ != nonce_before) never_equal_.insert(id);
  return builder.key();
}

std::string RunGraph::unequal() { return fmt::format("never equal {}", ++nonce_); }

std::string RunGraph::change_value(const std::string& id, const RunNode& node) {
  if (!node.type->change_key) return "";
  Call::Inputs given = surroundings(id);
  const Json& inputs = node.inputs();
  for (auto& input : node.type->inputs) {
    auto found = inputs.find(input.name);
    if (found != inputs.end() && !as_link(*found))
      given.values[input.name] = {Value::constant(*found)};
  }
  try {
    auto change = node.type->change_key(Call(*node.type, std::move(given)));
    return change ? "changed " + *change : unequal();
  } catch (const std::exception& problem) {
    log::debug("{} cannot tell whether it changed: {}", place_of(id), problem.what());
    return unequal();
  }
}

Json RunGraph::made_node(const Json& node, const std::string& prefix, const Call& call) {
  Json copy = node;
  auto inputs = copy.is_object() ? copy.find("inputs") : copy.end();
  if (inputs == copy.end() || !inputs->is_object()) return copy;
  for (auto& [name, value] : inputs->items()) {
    if (auto link = as_link(value)) {
      if (call.expansion().contains(link->node)) value[0] = prefix + link->node;
    } else if (value.is_object() && value.contains(kHeldInCall)) {
      held_[++nonce_] = call.held().at(value[kHeldInCall].get<std::size_t>());
      value = {{kHeld, nonce_}};
    }
  }
  return copy;
}

const Value* RunGraph::held_by(const RunNode& node, const Json& input) const {
  if (node.parent.empty() || !input.is_object()) return nullptr;
  auto number = input.find(kHeld);
  if (number == input.end() || !number->is_number_unsigned()) return nullptr;
  auto found = held_.find(number->get<std::uint64_t>());
  return found == held_.end() ? nullptr : &found->second;
}

std::vector<std::string> RunGraph::expand(const std::string& id, const std::string& prefix,
                                          const Call& call) {
  const Json& graph = call.expansion();
  if (nodes_.size() + graph.size() > kMaxNodes)
    throw Error(ErrorKind::Usage, place_of(id), "expands to too many nodes");
  std::vector<std::string> outputs;
  for (auto& [local, node] : graph.items()) {
    std::string full = prefix + local;
    Json copy = made_node(node, prefix, call);
    const NodeType* type =
        copy.is_object() && copy.contains("class_type") && copy["class_type"].is_string()
            ? &catalog_.get(copy["class_type"].get<std::string>())
            : nullptr;
    if (!type)
      throw Error(ErrorKind::Internal, place_of(id),
                  fmt::format("expands to node '{}' without a class", local));
    if (nodes_.count(full))
      throw Error(ErrorKind::Internal, place_of(id), fmt::format("expands to node {} twice", full));
    std::string shown = id;
    if (copy.contains("override_display_id") && copy["override_display_id"].is_string())
      shown = copy["override_display_id"].get<std::string>();
    made_.push_back(std::move(copy));
    nodes_[full] = with_live_inputs({&made_.back(), type, id, shown == full ? id : shown});
    if (type->output_node) outputs.push_back(full);
  }
  return outputs;
}

}  // namespace distorch::graph
