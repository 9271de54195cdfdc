#include "distorch/graph/ui_flat.h"

#include <fmt/format.h>

#include <set>

#include "distorch/graph/older_widgets.h"

namespace distorch::graph {
namespace {

constexpr std::size_t kMaxNesting = 64;
constexpr std::size_t kMaxNodes = 100'000;
constexpr std::size_t kMaxSteps = 5'000'000;  // over all links of one conversion

std::optional<std::size_t> input_index(const UiGraph& graph, const std::string& name) {
  for (std::size_t k = 0; k < graph.inputs.size(); ++k)
    if (graph.inputs[k].name == name) return k;
  return std::nullopt;
}

}  // namespace

FlatWorkflow::FlatWorkflow(const UiWorkflow& workflow, const Definitions& definitions,
                           const std::string& where)
    : workflow_(workflow), definitions_(definitions), where_(where) {
  scopes_.emplace_back().graph = &workflow_.root;
  std::size_t nodes = 0;
  for (std::size_t i = 0; i < scopes_.size(); ++i) {
    Scope& scope = scopes_[i];
    nodes += scope.graph->nodes.size();
    if (nodes > kMaxNodes)
      throw Error(ErrorKind::Format, where_, fmt::format("grows to more than {} nodes", kMaxNodes));
    for (auto& node : scope.graph->nodes) {
      const UiGraph* inner = workflow_.subgraph(node.type);
      // Within a subgraph the page lists the inside of an instance whatever its mode.
      if (!inner || (node.mode != UiMode::Active && scope.depth == 0)) continue;
      if (scope.depth + 1 > kMaxNesting)
        throw Error(ErrorKind::Format, where_, "nests subgraphs too deeply");
      enter(scope, node, *inner);
    }
    note_primitives(*scope.graph);
  }
}

void FlatWorkflow::enter(Scope& scope, const UiNode& host, const UiGraph& inner) {
  Scope& inside = scopes_.emplace_back();
  inside.graph = &inner;
  inside.parent = &scope;
  inside.host = &host;
  inside.depth = scope.depth + 1;
  inside.prefix = scope.prefix + host.id + ":";
  for (std::size_t i = 0; i < host.proxy_widgets.size(); ++i) {
    auto& [id, name] = host.proxy_widgets[i];
    if (id == "-1") continue;
    auto outer = scope.overrides.find({host.file_id, name});
    bool given = outer != scope.overrides.end() && outer->second;
    inside.overrides[{id, name}] = given ? outer->second : stored_at(scope, host, i, name);
  }
  scope.inside[host.file_id] = &inside;
}

// What an instance stores at a place of its widgets.
std::optional<Json> FlatWorkflow::stored_at(const Scope& scope, const UiNode& host,
                                            std::size_t place, const std::string& name) const {
  const Json& stored = host.widgets_values;
  if (workflow_.forgets_values(*scope.graph, *workflow_.subgraph(host.type))) return std::nullopt;
  if (stored.is_array() && place < stored.size()) return stored[place];
  if (stored.is_object() && stored.contains(name)) return stored[name];
  return std::nullopt;
}

// A PrimitiveNode writes its first value into every widget it feeds, whatever its mode.
void FlatWorkflow::note_primitives(const UiGraph& graph) {
  if (primitives_.count(&graph)) return;
  auto& writes = primitives_[&graph];
  for (auto& [id, link] : graph.links) {
    const UiNode* from = graph.find(link.from);
    const UiNode* to = graph.find(link.to);
    if (!from || !to || from->type != "PrimitiveNode" || link.to_slot >= to->inputs.size())
      continue;
    const UiSocket& socket = to->inputs[link.to_slot];
    if (socket.link != id || !from->widgets_values.is_array() || from->widgets_values.empty())
      continue;
    std::string widget = socket.widget.empty() ? socket.name : socket.widget;
    writes[to->file_id][widget] = from->widgets_values.front();
  }
}

bool FlatWorkflow::is_virtual(const UiNode& node) const {
  return node.is_virtual() || (node.is_page_addon() && !definitions_.find(node.type));
}

const NodeForm& FlatWorkflow::form(const UiNode& node) {
  auto known = forms_.find(&node);
  if (known != forms_.end()) return known->second;
  NodeForm& made = forms_[&node];
  if (const Json* definition = definitions_.find(node.type)) {
    StoredNode stored{node.type, without_older_order(node.type, node.widgets_values), {}};
    for (auto& input : node.inputs)
      if (!input.link.empty()) stored.linked.push_back(input.name);
    made = node_form(*definition, stored);
  }
  return made;
}

std::vector<OwnValue> FlatWorkflow::own_values(const Scope& scope, const UiNode& node) {
  std::vector<OwnValue> values;
  const std::map<std::string, Json>* written = nullptr;
  auto writes = primitives_.find(scope.graph);
  if (writes != primitives_.end()) {
    auto target = writes->second.find(node.file_id);
    if (target != writes->second.end()) written = &target->second;
  }
  for (auto& widget : form(node).widgets) {
    OwnValue own{&widget, widget.value, false};
    if (written && written->count(widget.name)) own.value = written->at(widget.name);
    auto override = scope.overrides.find({node.file_id, widget.name});
    if (override != scope.overrides.end()) {
      own.promoted = true;
      if (override->second)
        own.value = override->second->is_null() ? widget.first_choice : *override->second;
    }
    values.push_back(std::move(own));
  }
  return values;
}

// Which inputs of a subgraph feed a widget inside. Definitions nest at most kMaxNesting deep here.
const std::vector<bool>& FlatWorkflow::promoted(const UiGraph& graph) {
  auto known = promoted_.find(&graph);
  if (known != promoted_.end()) return known->second;
  std::vector<bool> feeds(graph.inputs.size(), false);
  for (auto& [id, link] : graph.links)
    if (link.from == kSubgraphInput && link.from_slot < feeds.size() && feeds_widget(graph, link))
      feeds[link.from_slot] = true;
  return promoted_[&graph] = std::move(feeds);
}

bool FlatWorkflow::feeds_widget(const UiGraph& graph, const UiLink& link) {
  const UiNode* target = graph.find(link.to);
  if (!target || link.to_slot >= target->inputs.size()) return false;
  const UiSocket& socket = target->inputs[link.to_slot];
  if (const UiGraph* inner = workflow_.subgraph(target->type)) {
    auto k = input_index(*inner, socket.name);
    return k && promoted(*inner)[*k];
  }
  if (!definitions_.find(target->type)) return !socket.widget.empty();
  const DeclaredInput* declared = form(*target).find_input(socket.name);
  return declared && declared->widget;
}

// The value that instance `host` (in `scope`) gives to its promoted input.
Json FlatWorkflow::host_value(const Scope& scope, const UiNode& host, const UiGraph& inner,
                              std::size_t input) {
  const std::string& name = inner.inputs[input].name;
  auto override = scope.overrides.find({host.file_id, name});
  if (override != scope.overrides.end() && override->second) return *override->second;
  std::size_t place = 0;
  if (!host.proxy_widgets.empty()) {
    while (place < host.proxy_widgets.size() &&
           host.proxy_widgets[place] != std::pair<std::string, std::string>("-1", name))
      ++place;
  } else {
    for (std::size_t i = 0; i < input; ++i) place += promoted(inner)[i];
  }
  auto stored = stored_at(scope, host, place, name);
  if (stored && !stored->is_null()) return *stored;
  auto inside = scope.inside.find(host.file_id);
  if (inside == scope.inside.end()) return nullptr;
  if (!stored) return fed_value(*inside->second, input);
  const Widget* widget = fed_widget(inside->second, input);
  return widget ? widget->first_choice : Json();
}

// The first link from an input to a widget inside, perhaps of a deeper instance.
const UiLink* FlatWorkflow::first_fed(const UiGraph& graph, std::size_t input) {
  for (auto& id : graph.input_links[input]) {
    const UiLink* link = graph.find_link(id);
    if (link && feeds_widget(graph, *link)) return link;
  }
  return nullptr;
}

// The value of the first inner widget that an input feeds.
Json FlatWorkflow::fed_value(const Scope& scope, std::size_t input) {
  const UiGraph& graph = *scope.graph;
  const UiLink* link = first_fed(graph, input);
  if (!link) return nullptr;
  const UiNode& target = *graph.find(link->to);
  const std::string& name = target.inputs[link->to_slot].name;
  if (const UiGraph* inner = workflow_.subgraph(target.type))
    return host_value(scope, target, *inner, *input_index(*inner, name));
  for (auto& own : own_values(scope, target))
    if (own.widget->name == name) return own.value;
  return nullptr;
}

// That widget itself, however deep.
const Widget* FlatWorkflow::fed_widget(const Scope* scope, std::size_t input) {
  for (;;) {
    const UiGraph& graph = *scope->graph;
    const UiLink* link = first_fed(graph, input);
    if (!link) return nullptr;
    const UiNode& target = *graph.find(link->to);
    const std::string& name = target.inputs[link->to_slot].name;
    const UiGraph* inner = workflow_.subgraph(target.type);
    if (!inner) return form(target).find_widget(name);
    auto inside = scope->inside.find(target.file_id);
    if (inside == scope->inside.end()) return nullptr;
    scope = inside->second;
    input = *input_index(*inner, name);
  }
}

Source FlatWorkflow::source(const Scope& scope, const UiNode& node, const UiSocket& socket) {
  const DeclaredInput* declared = form(node).find_input(socket.name);
  return resolve(&scope, socket.link, declared ? declared->type : socket.type);
}

Source FlatWorkflow::resolve(const Scope* scope, std::string link_id, std::string wanted) {
  std::set<std::pair<const Scope*, const UiLink*>> seen;
  for (;;) {
    const UiLink* link = link_id.empty() ? nullptr : scope->graph->find_link(link_id);
    if (!link) return {};
    if (!seen.insert({scope, link}).second)
      throw Error(
          ErrorKind::Format, where_,
          fmt::format("has links that run in a circle at node {}{}", scope->prefix, link->from));
    if (++steps_ > kMaxSteps)
      throw Error(ErrorKind::Format, where_, "has links too tangled to follow");
    if (scope->host && link->from == kSubgraphInput) {
      const std::size_t input = link->from_slot;
      const UiGraph& left = *scope->graph;
      if (auto constant = leave(scope, *link, link_id)) return *constant;
      wanted = left.inputs[input].type;
      continue;
    }
    const UiNode* node = scope->graph->find(link->from);
    if (!node || node->mode == UiMode::Muted) return {};
    const UiGraph* inner = workflow_.subgraph(node->type);
    if (node->mode == UiMode::Bypassed) {
      const UiSocket taken = bypass(*node, link->from_slot, wanted);
      link_id = taken.link;
      wanted = taken.type;
    } else if (inner) {
      auto out = inner->output_links.find(link->from_slot);
      auto inside = scope->inside.find(node->file_id);
      if (out == inner->output_links.end() || inside == scope->inside.end()) return {};
      scope = inside->second;
      link_id = out->second;
    } else if (is_virtual(*node)) {
      link_id = pass_virtual(*scope, *node, link->from_slot);
    } else {
      return {Source::Node, scope->id_of(*node), link->from_slot, {}};
    }
  }
}

// From a subgraph's own input out to the instance's: goes on at its link, or ends with the widget's
// value.
std::optional<Source> FlatWorkflow::leave(const Scope*& scope, const UiLink& link,
                                          std::string& link_id) {
  const UiGraph& graph = *scope->graph;
  if (link.from_slot >= graph.inputs.size()) return Source{};
  const UiSocket* outside = scope->host->find_input(graph.inputs[link.from_slot].name);
  if (outside && !outside->link.empty()) {
    link_id = outside->link;
    scope = scope->parent;
    return std::nullopt;
  }
  if (!promoted(graph)[link.from_slot]) return Source{};
  return Source{
      Source::Constant, {}, 0, host_value(*scope->parent, *scope->host, graph, link.from_slot)};
}

// The link at which a node of the page alone goes on: its input of the same index; a getter goes on
// at the setter of its name.
std::string FlatWorkflow::pass_virtual(const Scope& scope, const UiNode& node,
                                       std::size_t slot) const {
  const UiNode* from = &node;
  if (node.type == "GetNode") {
    auto name = [](const UiNode& any) {
      const Json& values = any.widgets_values;
      return values.is_array() && !values.empty() ? values.front() : Json();
    };
    from = nullptr;
    for (auto& other : scope.graph->nodes)
      if (other.type == "SetNode" && !name(other).is_null() && name(other) == name(node))
        from = &other;
  }
  return from && slot < from->inputs.size() ? from->inputs[slot].link : "";
}

// The input that a bypassed node passes through to this output; from there on its type is wanted.
UiSocket FlatWorkflow::bypass(const UiNode& node, std::size_t slot, const std::string& wanted) {
  std::vector<UiSocket> sockets = page_sockets(node);
  if (sockets.empty()) return {};
  if (wanted.empty() || wanted == "*") return sockets[slot < sockets.size() ? slot : 0];
  std::string output = slot < node.outputs.size() ? node.outputs[slot].type : wanted;
  auto fits = [&](const UiSocket& s) {
    return types_fit(s.type, output) && types_fit(s.type, wanted);
  };
  if (slot < sockets.size() && fits(sockets[slot])) return sockets[slot];
  for (auto& socket : sockets)
    if (socket.type == wanted) return socket;
  for (auto& socket : sockets)
    if (fits(socket)) return socket;
  return {};
}

// The sockets of the definition in the page's order, then what only the file has.
std::vector<UiSocket> FlatWorkflow::page_sockets(const UiNode& node) {
  auto& declared = form(node).inputs;
  if (declared.empty()) return node.inputs;
  std::vector<UiSocket> sockets;
  for (auto& input : declared) {
    const UiSocket* socket = node.find_input(input.name);
    sockets.push_back({input.name, input.type, socket ? socket->link : "", ""});
  }
  for (auto& socket : node.inputs)
    if (socket.widget.empty() && !form(node).find_input(socket.name) &&
        !form(node).drops(socket.name))
      sockets.push_back(socket);
  return sockets;
}

}  // namespace distorch::graph
