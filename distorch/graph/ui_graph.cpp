#include "distorch/graph/ui_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <unordered_set>

namespace distorch::graph {
namespace {

const Json kNull;
constexpr long long kLargestId = 1ll << 53;

const Json& field(const Json& object, const char* name) {
  if (!object.is_object()) return kNull;
  auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

std::string id_of(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return value.dump();
  if (value.is_number_float()) return fmt::format("{:.0f}", value.get<double>());
  return {};
}

std::size_t slot_of(const Json& value) {
  if (value.is_number_unsigned()) return std::min<std::size_t>(value.get<std::size_t>(), 1u << 20);
  if (value.is_number())
    return static_cast<std::size_t>(std::clamp(value.get<double>(), 0.0, 1048576.0));
  return 0;
}

UiMode mode_of(const Json& value) {
  if (!value.is_number()) return UiMode::Active;
  double mode = value.get<double>();
  return mode == 2 ? UiMode::Muted : mode == 4 ? UiMode::Bypassed : UiMode::Active;
}

std::vector<UiSocket> read_sockets(const Json& list) {
  std::vector<UiSocket> sockets;
  if (!list.is_array()) return sockets;
  for (auto& entry : list) {
    UiSocket socket;
    socket.name = text_of(field(entry, "name"));
    // A type may be 0 or -1 (event) in very old files: anything.
    const Json& type = field(entry, "type");
    socket.type = type.is_string() ? type.get<std::string>() : type.is_array() ? "COMBO" : "*";
    socket.link = id_of(field(entry, "link"));
    socket.widget = text_of(field(field(entry, "widget"), "name"));
    sockets.push_back(std::move(socket));
  }
  return sockets;
}

UiNode read_node(const Json& json) {
  UiNode node;
  node.file_id = node.id = id_of(field(json, "id"));
  node.type = text_of(field(json, "type"));
  node.title = text_of(field(json, "title"));
  node.mode = mode_of(field(json, "mode"));
  node.inputs = read_sockets(field(json, "inputs"));
  node.outputs = read_sockets(field(json, "outputs"));
  if (field(json, "outputs").is_array())
    for (auto& output : field(json, "outputs")) {
      const Json& links = field(output, "links");
      node.any_output_linked = node.any_output_linked || (links.is_array() && !links.empty());
    }
  const Json& values = field(json, "widgets_values");
  if (values.is_array() || values.is_object()) node.widgets_values = values;
  if (field(json, "widgets_values_named").is_object())
    node.named_values = json["widgets_values_named"];
  const Json& properties = field(json, "properties");
  const Json& proxies = field(properties, "proxyWidgets");
  if (proxies.is_array())
    for (auto& entry : proxies)
      if (entry.is_array() && entry.size() >= 2)
        node.proxy_widgets.emplace_back(id_of(entry[0]), text_of(entry[1]));
  node.search_name = text_of(field(properties, "Node name for S&R"));
  node.pack = text_of(field(properties, "cnr_id"));
  if (node.pack.empty()) node.pack = text_of(field(properties, "aux_id"));
  std::string version = text_of(field(properties, "ver"));
  if (!node.pack.empty() && !version.empty()) node.pack += " " + version;
  return node;
}

void read_link(const Json& json, UiGraph& graph) {
  UiLink link;
  std::string id;
  if (json.is_array() && json.size() >= 5) {
    id = id_of(json[0]);
    link = {id_of(json[1]), id_of(json[3]), slot_of(json[2]), slot_of(json[4])};
  } else if (json.is_object()) {
    id = id_of(field(json, "id"));
    link = {id_of(field(json, "origin_id")), id_of(field(json, "target_id")),
            slot_of(field(json, "origin_slot")), slot_of(field(json, "target_slot"))};
  }
  if (id.empty()) return;
  if (link.to == kSubgraphOutput) graph.output_links.emplace(link.to_slot, id);
  graph.links.emplace(std::move(id), std::move(link));
}

UiGraph read_graph(const Json& json, const std::string& where) {
  UiGraph graph;
  graph.id = id_of(field(json, "id"));
  graph.name = text_of(field(json, "name"));
  graph.inputs = read_sockets(field(json, "inputs"));
  graph.outputs = read_sockets(field(json, "outputs"));
  for (std::size_t i = 0; i < graph.inputs.size(); ++i) {
    auto& ids = graph.input_links.emplace_back();
    const Json& listed = field(field(json, "inputs")[i], "linkIds");
    if (listed.is_array())
      for (auto& id : listed) ids.push_back(id_of(id));
  }
  const Json& nodes = field(json, "nodes");
  if (!nodes.is_array())
    throw Error(ErrorKind::Format, where, "has a graph without a list of nodes");
  for (auto& entry : nodes) {
    UiNode node = read_node(entry);
    if (node.file_id.empty()) throw Error(ErrorKind::Format, where, "has a node without an id");
    if (!graph.by_id.emplace(node.file_id, graph.nodes.size()).second)
      throw Error(ErrorKind::Format, where, "has two nodes with the id " + node.file_id);
    graph.nodes.push_back(std::move(node));
  }
  const Json& links = field(json, "links");
  if (links.is_array())
    for (auto& entry : links) read_link(entry, graph);
  return graph;
}

// Refuses definitions that contain themselves, over any number of steps. Iterative: the nesting is
// the file's.
void refuse_self_containing(const UiWorkflow& workflow, const std::string& where) {
  enum class Mark { New, Open, Done };
  std::unordered_map<const UiGraph*, Mark> marks;
  struct Frame {
    const UiGraph* graph;
    std::size_t next;
  };
  for (auto& [id, start] : workflow.subgraphs) {
    if (marks[&start] != Mark::New) continue;
    std::vector<Frame> stack{{&start, 0}};
    marks[&start] = Mark::Open;
    while (!stack.empty()) {
      Frame& frame = stack.back();
      if (frame.next == frame.graph->nodes.size()) {
        marks[frame.graph] = Mark::Done;
        stack.pop_back();
        continue;
      }
      const UiGraph* inner = workflow.subgraph(frame.graph->nodes[frame.next++].type);
      if (!inner || marks[inner] == Mark::Done) continue;
      if (marks[inner] == Mark::Open)
        throw Error(ErrorKind::Format, where,
                    "has a subgraph that contains itself: '" + inner->name + "'");
      marks[inner] = Mark::Open;
      stack.push_back({inner, 0});
    }
  }
}

bool holds_one_twice(const UiWorkflow& workflow) {
  for (auto& [id, graph] : workflow.subgraphs) {
    std::unordered_set<std::string> held;
    for (auto& node : graph.nodes)
      if (workflow.subgraph(node.type) && !held.insert(node.type).second) return true;
  }
  return false;
}

// The last number that the page gave away, 0 if the file does not tell.
long long last_node_id(const Json& json) {
  const Json& last = field(json, "last_node_id");
  return last.is_number_integer() ? std::clamp(last.get<long long>(), 0ll, kLargestId) : 0;
}

// Inner nodes whose id is taken (by the root, or by a definition earlier in the file) get the next
// number that is free there.
void renumber(UiWorkflow& workflow, const std::vector<std::string>& order, long long last_id) {
  std::unordered_set<std::string> taken;
  long long highest = last_id;
  auto take = [&](const std::string& id) {
    char* end = nullptr;
    long long number = std::strtoll(id.c_str(), &end, 10);
    if (!taken.insert(id).second) return false;
    if (*end == '\0' && number < kLargestId) highest = std::max(highest, number);
    return true;
  };
  for (auto& node : workflow.root.nodes) take(node.id);
  for (auto& id : order)
    for (auto& node : workflow.subgraphs.at(id).nodes)
      while (!take(node.id)) node.id = std::to_string(++highest);
}

}  // namespace

const UiSocket* UiNode::find_input(const std::string& name) const {
  for (auto& input : inputs)
    if (input.name == name) return &input;
  return nullptr;
}

bool UiNode::is_virtual() const {
  return type == "Reroute" || type == "PrimitiveNode" || type == "Note" || type == "MarkdownNote";
}

bool UiNode::is_page_addon() const {
  return type == "GetNode" || type == "SetNode" || type == "Reroute (rgthree)";
}

const UiNode* UiGraph::find(const std::string& file_id) const {
  auto found = by_id.find(file_id);
  return found == by_id.end() ? nullptr : &nodes[found->second];
}

const UiLink* UiGraph::find_link(const std::string& link_id) const {
  auto found = links.find(link_id);
  return found == links.end() ? nullptr : &found->second;
}

const UiGraph* UiWorkflow::subgraph(const std::string& type) const {
  auto found = subgraphs.find(type);
  return found == subgraphs.end() ? nullptr : &found->second;
}

bool UiWorkflow::forgets_values(const UiGraph& outer, const UiGraph& inner) const {
  return loaded_in_file_order && &outer != &root && outer.place < inner.place;
}

UiWorkflow read_ui_workflow(const Json& json, const std::string& where) {
  UiWorkflow workflow;
  workflow.root = read_graph(json, where);
  std::vector<std::string> order;
  const Json& subgraphs = field(field(json, "definitions"), "subgraphs");
  if (subgraphs.is_array())
    for (auto& entry : subgraphs) {
      UiGraph graph = read_graph(entry, where);
      std::string id = graph.id;
      graph.place = order.size();
      if (!id.empty() && workflow.subgraphs.emplace(id, std::move(graph)).second)
        order.push_back(id);
    }
  const Json& groups = field(field(json, "extra"), "groupNodes");
  if (groups.is_object())
    for (auto& [name, definition] : groups.items()) workflow.group_nodes.push_back(name);
  workflow.loaded_in_file_order = holds_one_twice(workflow);
  refuse_self_containing(workflow, where);
  renumber(workflow, order, last_node_id(json));
  return workflow;
}

}  // namespace distorch::graph
