#include "distorch/graph/events.h"

namespace distorch::graph {
namespace {

struct Named {
  const char* type;
  Json data;
};

// Whole numbers are sent as integers where the protocol's readers expect counts.
Json count(double number) {
  auto whole = static_cast<std::int64_t>(number);
  return static_cast<double>(whole) == number ? Json(whole) : Json(number);
}

Json node_state(const NodeState& node, const std::string& prompt_id) {
  return {{"value", node.value},
          {"max", node.max},
          {"state", node.state},
          {"node_id", node.node_id},
          {"prompt_id", prompt_id},
          {"display_node_id", node.display_node_id},
          {"parent_node_id", node.parent_node_id ? Json(*node.parent_node_id) : Json()},
          {"real_node_id", node.real_node_id}};
}

Named describe(const ExecutionStart& e) {
  return {"execution_start", {{"prompt_id", e.prompt_id}, {"timestamp", e.timestamp}}};
}
Named describe(const ExecutionCached& e) {
  return {"execution_cached",
          {{"nodes", e.nodes}, {"prompt_id", e.prompt_id}, {"timestamp", e.timestamp}}};
}
Named describe(const ProgressState& e) {
  Json nodes = Json::object();
  for (auto& node : e.nodes) nodes[node.node_id] = node_state(node, e.prompt_id);
  return {"progress_state", {{"prompt_id", e.prompt_id}, {"nodes", std::move(nodes)}}};
}
Named describe(const Executing& e) {
  Json data = {{"node", e.node ? Json(*e.node) : Json()}};
  if (e.node) data["display_node"] = e.display_node;
  data["prompt_id"] = e.prompt_id;
  return {"executing", std::move(data)};
}
Named describe(const Progress& e) {
  return {"progress",
          {{"value", count(e.value)},
           {"max", count(e.max)},
           {"prompt_id", e.prompt_id},
           {"node", e.node}}};
}
Named describe(const Preview& e) {
  return {"preview",
          {{"node_id", e.node.node_id},
           {"prompt_id", e.prompt_id},
           {"display_node_id", e.node.display_node_id},
           {"parent_node_id", e.node.parent_node_id ? Json(*e.node.parent_node_id) : Json()},
           {"real_node_id", e.node.real_node_id}}};
}
Named describe(const Executed& e) {
  return {"executed",
          {{"node", e.node},
           {"display_node", e.display_node},
           {"output", e.output},
           {"prompt_id", e.prompt_id}}};
}
Named describe(const ExecutionSuccess& e) {
  return {"execution_success", {{"prompt_id", e.prompt_id}, {"timestamp", e.timestamp}}};
}
Named describe(const ExecutionError& e) {
  return {"execution_error",
          {{"prompt_id", e.prompt_id},
           {"node_id", e.node_id},
           {"node_type", e.node_type},
           {"executed", e.executed},
           {"exception_message", e.exception_message},
           {"exception_type", e.exception_type},
           {"traceback", e.traceback},
           {"current_inputs", e.current_inputs},
           {"current_outputs", e.current_outputs},
           {"timestamp", e.timestamp}}};
}
Named describe(const ExecutionInterrupted& e) {
  return {"execution_interrupted",
          {{"prompt_id", e.prompt_id},
           {"node_id", e.node_id},
           {"node_type", e.node_type},
           {"executed", e.executed},
           {"timestamp", e.timestamp}}};
}

}  // namespace

const char* type_of(const Event& event) {
  constexpr const char* names[] = {"execution_start", "execution_cached",
                                   "progress_state",  "executing",
                                   "progress",        "preview",
                                   "executed",        "execution_success",
                                   "execution_error", "execution_interrupted"};
  return names[event.index()];
}

Json to_json(const Event& event) {
  Named named = std::visit([](auto& e) { return describe(e); }, event);
  return {{"type", named.type}, {"data", std::move(named.data)}};
}

}  // namespace distorch::graph
