#include "distorch/graph/ui_to_api.h"

#include <fmt/format.h>

#include <cmath>
#include <deque>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "distorch/base/hash.h"
#include "distorch/graph/catalog.h"
#include "distorch/graph/json_text.h"
#include "distorch/graph/near_names.h"
#include "distorch/graph/text_replace.h"
#include "distorch/graph/ui_graph.h"
#include "distorch/graph/widgets.h"

namespace distorch::graph {
namespace {

constexpr std::size_t kMaxNesting = 64;
constexpr std::size_t kMaxNodes = 100'000;
constexpr std::size_t kMaxSteps = 5'000'000;  // over all links of one conversion

using Values = std::vector<std::pair<std::string, Json>>;

// One graph as it stands in the whole: the root, or the inside of one subgraph instance.
struct Scope {
  const UiGraph* graph = nullptr;
  const Scope* parent = nullptr;
  const UiNode* host = nullptr;  // the instance, in parent
  std::string prefix;            // "2:5:" before the ids inside
  std::size_t depth = 0;
  std::unordered_map<std::string, const Scope*> inside;  // by the instance's file id
  // (inner file id, widget) -> value
  std::map<std::pair<std::string, std::string>, Json> overrides;
};

// Where a link comes from in the end.
struct Source {
  enum Kind { Nothing, Node, Constant } kind = Nothing;
  std::string id;
  std::size_t slot = 0;
  Json value;
};

std::string text_of_value(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "";
  if (value.is_number_float()) {
    double number = value.get<double>();
    if (std::trunc(number) == number && std::abs(number) < 1e21)
      return fmt::format("{:.0f}", number);
    return fmt::format("{}", number);
  }
  return json_line(value);
}

class Converter {
 public:
  Converter(const UiWorkflow& workflow, const Definitions& definitions,
            const ConvertOptions& options)
      : workflow_(workflow), definitions_(definitions), options_(options) {
    localtime_r(&options.now, &time_);
  }

  Prompt run() {
    build_scopes();
    refuse_unknown();
    Prompt prompt;
    prompt.nodes = Json::object();
    auto& nodes = prompt.nodes.get_ref<Json::object_t&>();  // ids differ: append without a search
    std::unordered_set<std::string> ids;
    for (auto& scope : scopes_)
      for (auto& node : scope.graph->nodes)
        if (is_sent(node)) {
          std::string id = scope.prefix + node.id;
          if (!ids.insert(id).second)
            throw Error(ErrorKind::Format, options_.where, "has two nodes with the id " + id);
          nodes.push_back({id, emit(scope, node)});
        }
    drop_dangling(prompt.nodes, ids);
    prompt.notes = std::move(notes_);
    return prompt;
  }

 private:
  // --- structure
  void build_scopes() {
    scopes_.emplace_back().graph = &workflow_.root;
    std::size_t nodes = 0;
    for (std::size_t i = 0; i < scopes_.size(); ++i) {
      Scope& scope = scopes_[i];
      nodes += scope.graph->nodes.size();
      if (nodes > kMaxNodes)
        throw Error(ErrorKind::Format, options_.where,
                    fmt::format("grows to more than {} nodes", kMaxNodes));
      for (auto& node : scope.graph->nodes) {
        const UiGraph* inner = workflow_.subgraph(node.type);
        if (!inner || node.mode != UiMode::Active) continue;
        if (scope.depth + 1 > kMaxNesting)
          throw Error(ErrorKind::Format, options_.where, "nests subgraphs too deeply");
        enter(scope, node, *inner);
      }
      note_primitives(*scope.graph);
    }
  }

  void enter(Scope& scope, const UiNode& host, const UiGraph& inner) {
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
      Json value = outer != scope.overrides.end() ? outer->second : stored_at(host, i, name);
      if (!value.is_null()) inside.overrides[{id, name}] = std::move(value);
    }
    scope.inside[host.file_id] = &inside;
  }

  static Json stored_at(const UiNode& host, std::size_t place, const std::string& name) {
    const Json& stored = host.widgets_values;
    if (stored.is_array() && place < stored.size()) return stored[place];
    if (stored.is_object() && stored.contains(name)) return stored[name];
    return nullptr;
  }

  // A PrimitiveNode writes its first value into every widget it feeds, whatever its mode.
  void note_primitives(const UiGraph& graph) {
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

  bool is_decoration(const UiNode& node) const {
    bool empty = node.widgets_values.is_null() || node.widgets_values.empty();
    return empty && node.inputs.empty() && !node.any_output_linked && !definitions_.find(node.type);
  }

  bool is_sent(const UiNode& node) const {
    return node.mode == UiMode::Active && !node.is_virtual() && !workflow_.subgraph(node.type) &&
           !is_decoration(node);
  }

  void refuse_unknown() {
    std::string found;
    for (auto& scope : scopes_)
      for (auto& node : scope.graph->nodes) {
        if (node.mode == UiMode::Active && !node.is_virtual() && is_decoration(node) &&
            !workflow_.subgraph(node.type))
          notes_.push_back(fmt::format("node {}{} ({}) is only a decoration here and is left out",
                                       scope.prefix, node.id, node.type));
        if (!is_sent(node) || definitions_.find(node.type)) continue;
        found += fmt::format("{}node {}{} {}", found.empty() ? "" : "\n", scope.prefix, node.id,
                             unknown(node));
      }
    if (!found.empty()) throw Error(ErrorKind::Usage, options_.where, found);
  }

  std::string unknown(const UiNode& node) const {
    for (const char* start : {"workflow>", "workflow/"})
      if (node.type.rfind(start, 0) == 0)
        return fmt::format(
            "is the old group node '{}': open the workflow in a current ComfyUI page and save it "
            "again, "
            "group nodes then become subgraphs",
            node.type.substr(9));
    bool uuid = node.type.size() == 36 && node.type[8] == '-' && node.type[13] == '-';
    if (uuid) return fmt::format("is the subgraph {}, which the file does not define", node.type);
    return fmt::format("({}) is of a type that distorch does not know.{}", node.type,
                       did_you_mean(node.type, definitions_.names()));
  }

  const WidgetLayout& layout(const std::string& type) {
    auto known = layouts_.find(type);
    if (known != layouts_.end()) return known->second;
    const Json* definition = definitions_.find(type);
    return layouts_[type] = definition ? widget_layout(*definition) : WidgetLayout{};
  }

  std::string title_of(const UiNode& node) const {
    if (!node.title.empty()) return node.title;
    const Json* definition = definitions_.find(node.type);
    if (definition && definition->contains("display_name") &&
        (*definition)["display_name"].is_string())
      return (*definition)["display_name"];
    return node.type;
  }

  // --- widgets
  // ---------------------------------------------------------------------------------------- A
  // node's own widget values: stored, then written by primitives, then overridden by the instance
  // around it.
  Values own_values(const Scope& scope, const UiNode& node) {
    Values values = widget_values(layout(node.type), node.widgets_values, node.type);
    auto writes = primitives_.find(scope.graph);
    for (auto& [name, value] : values) {
      if (writes != primitives_.end()) {
        auto target = writes->second.find(node.file_id);
        if (target != writes->second.end() && target->second.count(name))
          value = target->second.at(name);
      }
      auto override = scope.overrides.find({node.file_id, name});
      if (override != scope.overrides.end()) value = override->second;
    }
    return values;
  }

  // Does this input of a subgraph feed a widget inside? Definitions nest at most kMaxNesting deep
  // here.
  const std::vector<bool>& promoted(const UiGraph& graph) {
    auto known = promoted_.find(&graph);
    if (known != promoted_.end()) return known->second;
    std::vector<bool> feeds(graph.inputs.size(), false);
    for (auto& [id, link] : graph.links)
      if (link.from == kSubgraphInput && link.from_slot < feeds.size() && feeds_widget(graph, link))
        feeds[link.from_slot] = true;
    return promoted_[&graph] = std::move(feeds);
  }

  bool feeds_widget(const UiGraph& graph, const UiLink& link) {
    const UiNode* target = graph.find(link.to);
    if (!target || link.to_slot >= target->inputs.size()) return false;
    const UiSocket& socket = target->inputs[link.to_slot];
    if (const UiGraph* inner = workflow_.subgraph(target->type)) {
      auto k = input_index(*inner, socket.name);
      return k && promoted(*inner)[*k];
    }
    return !socket.widget.empty() || is_widget(*target, socket.name);
  }

  bool is_widget(const UiNode& node, const std::string& input) {
    for (auto& declared : layout(node.type).inputs)
      if (declared.name == input) return declared.widget;
    return false;
  }

  static std::optional<std::size_t> input_index(const UiGraph& graph, const std::string& name) {
    for (std::size_t k = 0; k < graph.inputs.size(); ++k)
      if (graph.inputs[k].name == name) return k;
    return std::nullopt;
  }

  // The value that instance `host` (in `scope`) gives to its promoted input k.
  Json host_value(const Scope& scope, const UiNode& host, const UiGraph& inner, std::size_t k) {
    const std::string& name = inner.inputs[k].name;
    auto override = scope.overrides.find({host.file_id, name});
    if (override != scope.overrides.end()) return override->second;
    std::size_t place = 0;
    if (!host.proxy_widgets.empty()) {
      while (place < host.proxy_widgets.size() &&
             host.proxy_widgets[place] != std::pair<std::string, std::string>("-1", name))
        ++place;
    } else {
      for (std::size_t i = 0; i < k; ++i) place += promoted(inner)[i];
    }
    Json value = stored_at(host, place, name);
    if (!value.is_null()) return value;
    auto inside = scope.inside.find(host.file_id);
    return inside == scope.inside.end() ? Json() : first_fed_value(*inside->second, k);
  }

  // The own value of the first inner widget that input k feeds.
  Json first_fed_value(const Scope& scope, std::size_t k) {
    const UiGraph& graph = *scope.graph;
    for (auto& id : graph.input_links[k]) {
      const UiLink* link = graph.find_link(id);
      if (!link || !feeds_widget(graph, *link)) continue;
      const UiNode& target = *graph.find(link->to);
      const UiSocket& socket = target.inputs[link->to_slot];
      if (const UiGraph* inner = workflow_.subgraph(target.type))
        return host_value(scope, target, *inner, *input_index(*inner, socket.name));
      for (auto& [name, value] : own_values(scope, target))
        if (name == socket.name) return value;
    }
    return nullptr;
  }

  // --- links
  Source resolve(const Scope* scope, std::string link_id, const std::string& wanted) {
    std::set<std::pair<const Scope*, const UiLink*>> seen;
    for (;;) {
      const UiLink* link = link_id.empty() ? nullptr : scope->graph->find_link(link_id);
      if (!link) return {};
      if (!seen.insert({scope, link}).second)
        throw Error(
            ErrorKind::Format, options_.where,
            fmt::format("has links that run in a circle at node {}{}", scope->prefix, link->from));
      if (++steps_ > kMaxSteps)
        throw Error(ErrorKind::Format, options_.where, "has links too tangled to follow");
      if (scope->host && link->from == kSubgraphInput) {
        if (auto constant = leave(scope, *link, link_id)) return *constant;
        continue;
      }
      const UiNode* node = scope->graph->find(link->from);
      if (!node || node->mode == UiMode::Muted) return {};
      const UiGraph* inner = workflow_.subgraph(node->type);
      if (node->mode == UiMode::Bypassed) {
        link_id = bypass(*node, link->from_slot, wanted);
      } else if (inner) {
        auto out = inner->output_links.find(link->from_slot);
        auto inside = scope->inside.find(node->file_id);
        if (out == inner->output_links.end() || inside == scope->inside.end()) return {};
        scope = inside->second;
        link_id = out->second;
      } else if (node->is_virtual()) {
        link_id = link->from_slot < node->inputs.size() ? node->inputs[link->from_slot].link : "";
      } else {
        return {Source::Node, scope->prefix + node->id, link->from_slot, {}};
      }
    }
  }

  // From a subgraph's own input out to the instance's: goes on at its link, or ends with the
  // widget's value.
  std::optional<Source> leave(const Scope*& scope, const UiLink& link, std::string& link_id) {
    const UiGraph& graph = *scope->graph;
    if (link.from_slot >= graph.inputs.size()) return Source{};
    const UiSocket* outside = scope->host->find_input(graph.inputs[link.from_slot].name);
    if (outside && !outside->link.empty()) {
      link_id = outside->link;
      scope = scope->parent;
      return std::nullopt;
    }
    if (!promoted(graph)[link.from_slot]) return Source{};
    Json value = host_value(*scope->parent, *scope->host, graph, link.from_slot);
    if (value.is_null()) return Source{};
    return Source{Source::Constant, {}, 0, std::move(value)};
  }

  // The link of the input that a bypassed node passes through to this output; "" for none.
  std::string bypass(const UiNode& node, std::size_t slot, const std::string& wanted) {
    std::vector<UiSocket> sockets = page_sockets(node);
    if (sockets.empty()) return "";
    if (wanted.empty() || wanted == "*") return sockets[slot < sockets.size() ? slot : 0].link;
    std::string output = slot < node.outputs.size() ? node.outputs[slot].type : wanted;
    auto fits = [&](const UiSocket& s) {
      return types_fit(s.type, output) && types_fit(s.type, wanted);
    };
    if (slot < sockets.size() && fits(sockets[slot])) return sockets[slot].link;
    for (auto& socket : sockets)
      if (socket.type == wanted) return socket.link;
    for (auto& socket : sockets)
      if (fits(socket)) return socket.link;
    return "";
  }

  // Sockets in the page's order: plain ones in definition order, then widgets.
  std::vector<UiSocket> page_sockets(const UiNode& node) {
    auto& declared = layout(node.type).inputs;
    if (declared.empty()) return node.inputs;
    std::vector<UiSocket> sockets;
    for (bool widget : {false, true})
      for (auto& input : declared)
        if (input.widget == widget) {
          const UiSocket* socket = node.find_input(input.name);
          sockets.push_back({input.name, input.type, socket ? socket->link : "", ""});
        }
    return sockets;
  }

  // --- output
  Json emit(const Scope& scope, const UiNode& node) {
    Json inputs = Json::object();
    auto& places = layout(node.type).places;
    for (auto& [name, value] : own_values(scope, node)) {
      const Widget* widget = nullptr;
      for (auto& place : places)
        if (place.name == name) widget = &place;
      inputs[name] = sent_value(scope, node, widget, value);
    }
    for (auto& socket : node.inputs) {
      if (socket.link.empty() || socket.name.empty()) continue;
      Source source = resolve(&scope, socket.link, wanted_type(node, socket));
      if (source.kind == Source::Node) inputs[socket.name] = Json::array({source.id, source.slot});
      if (source.kind != Source::Constant) continue;
      for (auto& place : places)
        if (place.name == socket.name)
          inputs[socket.name] = sent_value(scope, node, &place, source.value);
    }
    Json result = Json::object();
    result["inputs"] = std::move(inputs);
    result["class_type"] = node.type;
    result["_meta"] = {{"title", title_of(node)}};
    return result;
  }

  std::string wanted_type(const UiNode& node, const UiSocket& socket) {
    for (auto& declared : layout(node.type).inputs)
      if (declared.name == socket.name) return declared.type;
    return socket.type;
  }

  Json sent_value(const Scope& scope, const UiNode& node, const Widget* widget, const Json& value) {
    if (value.is_array()) {
      if (widget && widget->type == "CURVE") return {{"__type__", "CURVE"}, {"__value__", value}};
      return {{"__value__", value}};
    }
    if (!widget || !value.is_string()) return value;
    auto& text = value.get_ref<const std::string&>();
    if (widget->dynamic_prompts) {
      std::string id = scope.prefix + node.id;
      bool chose = false;
      std::string chosen =
          choose_dynamic(text, digest(id + "." + widget->name, options_.dynamic_seed).low, &chose);
      if (chose)
        notes_.push_back(fmt::format("node {} ({}) input {}: {{a|b}} choices made with seed {}: {}",
                                     id, node.type, widget->name, options_.dynamic_seed, chosen));
      return chosen;
    }
    if (widget->name == "filename_prefix" && is_output_node(node.type))
      return replace_placeholders(text, time_,
                                  [this](const std::string& name, const std::string& widget_name) {
                                    return find_widget(name, widget_name);
                                  });
    return value;
  }

  bool is_output_node(const std::string& type) const {
    const Json* definition = definitions_.find(type);
    return definition && definition->contains("output_node") &&
           (*definition)["output_node"] == true;
  }

  std::optional<std::string> find_widget(const std::string& name, const std::string& widget) {
    for (bool by_title : {false, true})
      for (auto& scope : scopes_)
        for (auto& node : scope.graph->nodes) {
          if ((by_title ? title_of(node) : node.search_name) != name) continue;
          for (auto& [key, value] : own_values(scope, node))
            if (key == widget) return text_of_value(value);
          return std::nullopt;
        }
    return std::nullopt;
  }

  static void drop_dangling(Json& nodes, const std::unordered_set<std::string>& ids) {
    for (auto& [id, node] : nodes.items()) {
      Json kept = Json::object();
      for (auto& [name, value] : node["inputs"].items()) {
        bool link = value.is_array() && value.size() == 2 && value[0].is_string();
        if (!link || ids.count(value[0].get<std::string>())) kept[name] = value;
      }
      node["inputs"] = std::move(kept);
    }
  }

  const UiWorkflow& workflow_;
  const Definitions& definitions_;
  const ConvertOptions& options_;
  std::tm time_{};
  std::deque<Scope> scopes_;
  std::unordered_map<const UiGraph*, std::unordered_map<std::string, std::map<std::string, Json>>>
      primitives_;
  std::unordered_map<const UiGraph*, std::vector<bool>> promoted_;
  std::map<std::string, WidgetLayout> layouts_;
  std::vector<std::string> notes_;
  std::size_t steps_ = 0;
};

}  // namespace

Definitions::Definitions(const Catalog& catalog) : catalog_(&catalog) {}

Definitions::Definitions(const Json& object_info) {
  if (!object_info.is_object()) throw Error(ErrorKind::Format, "object_info", "is not an object");
  for (auto& [type, definition] : object_info.items()) by_type_[type] = definition;
}

const Json* Definitions::find(const std::string& type) const {
  auto known = by_type_.find(type);
  if (known != by_type_.end()) return &known->second;
  const NodeType* found = catalog_ ? catalog_->find(type) : nullptr;
  return found ? &(by_type_[type] = definition_of(*found)) : nullptr;
}

std::vector<std::string> Definitions::names() const {
  if (catalog_) return catalog_->names();
  std::vector<std::string> result;
  for (auto& [type, definition] : by_type_) result.push_back(type);
  return result;
}

WorkflowFormat detect_format(const Json& json, const std::string& where) {
  if (json.is_object()) {
    if (json.contains("nodes") && json["nodes"].is_array()) return WorkflowFormat::Ui;
    for (auto& [id, node] : json.items())
      if (node.is_object() && node.contains("class_type")) return WorkflowFormat::Api;
  }
  throw Error(ErrorKind::Format, where,
              "is neither a ComfyUI workflow (with a list of nodes) nor a prompt (nodes with "
              "class_type by id)");
}

Prompt ui_to_api(const Json& workflow, const Definitions& definitions,
                 const ConvertOptions& options) {
  UiWorkflow read = read_ui_workflow(workflow, options.where);
  Prompt prompt = Converter(read, definitions, options).run();
  prompt.workflow = workflow;
  return prompt;
}

Prompt load_prompt(std::string_view text, const Definitions& definitions,
                   const ConvertOptions& options) {
  Json json = parse_json(text, options.where);
  bool posted = json.is_object() && json.contains("prompt") && json["prompt"].is_object() &&
                !json["prompt"].contains("class_type");
  if (posted) {
    Json inner = json["prompt"];
    json = std::move(inner);
  }
  if (detect_format(json, options.where) == WorkflowFormat::Ui)
    return ui_to_api(json, definitions, options);
  Prompt prompt;
  prompt.nodes = std::move(json);
  return prompt;
}

}  // namespace distorch::graph
