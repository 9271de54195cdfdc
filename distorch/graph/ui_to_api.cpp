#include "distorch/graph/ui_to_api.h"

#include <fmt/format.h>

#include <optional>
#include <set>
#include <unordered_set>

#include "distorch/base/hash.h"
#include "distorch/graph/json_text.h"
#include "distorch/graph/near_names.h"
#include "distorch/graph/text_replace.h"
#include "distorch/graph/ui_flat.h"
#include "distorch/graph/ui_graph.h"

namespace distorch::graph {
namespace {

// The widget values of a node whose definition is not known, with the names that the file gives
// them: by name in newer files, else by the widget sockets, which are listed in the order of places.
Json stored_inputs(const UiNode& node) {
  if (node.named_values.is_object()) return node.named_values;
  if (node.widgets_values.is_object()) return node.widgets_values;
  Json inputs = Json::object();
  if (!node.widgets_values.is_array()) return inputs;
  static const std::set<Json> controls = {"fixed", "increment", "decrement", "randomize"};
  std::size_t place = 0;
  for (auto& socket : node.inputs) {
    if (socket.widget.empty() || place >= node.widgets_values.size()) continue;
    inputs[socket.widget] = node.widgets_values[place++];
    bool number = socket.type == "INT" || socket.type == "FLOAT";
    if (number && place < node.widgets_values.size() && controls.count(node.widgets_values[place]))
      ++place;
  }
  return inputs;
}

// The types for which the page fills in %date% and %Node.widget%; others get the text as it is.
bool fills_in_names(const std::string& type) {
  static const std::set<std::string> types = {
      "SaveImage",  "SaveImageAdvanced", "SaveAnimatedWEBP", "SaveAnimatedPNG",   "SaveSVGNode",
      "SaveLatent", "CLIPSave",          "VAESave",          "ModelSave",         "LoraSave",
      "SaveAudio",  "SaveAudioMP3",      "SaveAudioOpus",    "SaveAudioAdvanced", "SaveWEBM",
      "SaveVideo",  "SaveGLB",           "Save3DAdvanced",   "SaveGaussianSplat", "SavePointCloud"};
  return types.count(type) != 0;
}

class Converter {
 public:
  Converter(const UiWorkflow& workflow, const Definitions& definitions,
            const ConvertOptions& options)
      : workflow_(workflow),
        definitions_(definitions),
        options_(options),
        flat_(workflow, definitions, options.where) {
    localtime_r(&options.now, &time_);
  }

  Prompt run() {
    if (options_.unknown_types == UnknownTypes::Refuse) refuse_unknown();
    Prompt prompt;
    prompt.nodes = Json::object();
    auto& nodes = prompt.nodes.get_ref<Json::object_t&>();  // ids differ: append without a search
    std::unordered_set<std::string> ids;
    for (auto& scope : flat_.scopes())
      for (auto& node : scope.graph->nodes)
        if (is_sent(node)) {
          std::string id = scope.id_of(node);
          if (!ids.insert(id).second)
            throw Error(ErrorKind::Format, options_.where, "has two nodes with the id " + id);
          nodes.push_back({id, emit(scope, node)});
        }
    drop_dangling(prompt.nodes, ids);
    prompt.notes = std::move(notes_);
    return prompt;
  }

 private:
  bool is_decoration(const UiNode& node) const {
    bool empty = node.widgets_values.is_null() || node.widgets_values.empty();
    return empty && node.inputs.empty() && !node.any_output_linked && !definitions_.find(node.type);
  }

  bool is_sent(const UiNode& node) const {
    return node.mode == UiMode::Active && !flat_.is_virtual(node) &&
           !workflow_.subgraph(node.type) && !is_decoration(node);
  }

  void refuse_unknown() {
    std::string found;
    for (auto& scope : flat_.scopes())
      for (auto& node : scope.graph->nodes) {
        if (node.mode == UiMode::Active && !flat_.is_virtual(node) && is_decoration(node) &&
            !workflow_.subgraph(node.type))
          notes_.push_back(fmt::format("node {} ({}) is only a decoration here and is left out",
                                       scope.id_of(node), node.type));
        if (!is_sent(node) || definitions_.find(node.type)) continue;
        found += fmt::format("{}node {} {}", found.empty() ? "" : "\n", scope.id_of(node),
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
    return fmt::format("({}) is of a type that distorch does not know{}.{}", node.type,
                       node.pack.empty() ? "" : ", from the pack " + node.pack,
                       did_you_mean(node.type, definitions_.names()));
  }

  std::string title_of(const UiNode& node) const {
    if (!node.title.empty()) return node.title;
    const Json* definition = definitions_.find(node.type);
    if (definition && definition->contains("display_name") &&
        (*definition)["display_name"].is_string())
      return (*definition)["display_name"];
    return node.type;
  }

  Json emit(const Scope& scope, const UiNode& node) {
    Json inputs = Json::object();
    auto& form = flat_.form(node);
    for (auto& own : flat_.own_values(scope, node))
      inputs[own.widget->name] =
          own.promoted ? as_sent(own.value) : typed_value(scope, node, *own.widget, own.value);
    bool known = definitions_.find(node.type) != nullptr;
    if (!known) inputs = stored_inputs(node);
    for (auto& socket : node.inputs) {
      if (socket.link.empty() || socket.name.empty()) continue;
      // A widget that the definition no longer has, or that another option of a choice would bring.
      if (known && !form.find_input(socket.name) &&
          (!socket.widget.empty() || form.drops(socket.name)))
        continue;
      Source source = flat_.source(scope, node, socket);
      if (source.kind == Source::Node) inputs[socket.name] = Json::array({source.id, source.slot});
      if (source.kind == Source::Constant) inputs[socket.name] = as_sent(source.value);
    }
    Json result = Json::object();
    result["inputs"] = std::move(inputs);
    result["class_type"] = node.type;
    result["_meta"] = {{"title", title_of(node)}};
    return result;
  }

  // Lists would be taken for links.
  static Json as_sent(const Json& value) {
    return value.is_array() ? Json{{"__value__", value}} : value;
  }

  // A value that stands in the node itself.
  Json typed_value(const Scope& scope, const UiNode& node, const Widget& widget,
                   const Json& value) {
    if (widget.type == "CURVE") return {{"__type__", "CURVE"}, {"__value__", value}};
    if (!value.is_string()) return as_sent(value);
    auto& text = value.get_ref<const std::string&>();
    if (widget.dynamic_prompts) {
      std::string id = scope.id_of(node);
      bool chose = false;
      std::string chosen =
          choose_dynamic(text, digest(id + "." + widget.name, options_.dynamic_seed).low, &chose);
      if (chose)
        notes_.push_back(fmt::format("node {} ({}) input {}: {{a|b}} choices made with seed {}: {}",
                                     id, node.type, widget.name, options_.dynamic_seed, chosen));
      return chosen;
    }
    if (widget.name == "filename_prefix" && fills_in_names(node.type))
      return replace_placeholders(text, time_,
                                  [this](const std::string& name, const std::string& widget_name) {
                                    return find_widget(name, widget_name);
                                  });
    return value;
  }

  std::optional<std::string> find_widget(const std::string& name, const std::string& widget) {
    for (bool by_title : {false, true})
      for (auto& scope : flat_.scopes())
        for (auto& node : scope.graph->nodes) {
          if ((by_title ? title_of(node) : node.search_name) != name) continue;
          for (auto& own : flat_.own_values(scope, node))
            if (own.widget->name == widget) return text_of_value(own.value);
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
  FlatWorkflow flat_;
  std::tm time_{};
  std::vector<std::string> notes_;
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
