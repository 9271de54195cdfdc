#include "distorch/graph/dynamic_inputs.h"

#include <algorithm>

#include "distorch/graph/validation.h"

namespace distorch::graph {
namespace {

/// An input as the definition of an option or of a growing list holds it.
Input from_definition(std::string name, const Json& definition, bool required) {
  if (definition.at(0).is_array())
    return from_definition(std::move(name), {"COMBO", {{"options", definition[0]}}}, required);
  Input input;
  input.name = std::move(name);
  input.required = required;
  input.type = definition.at(0).get<std::string>();
  if (definition.size() > 1) input.options = definition[1];
  if (input.type == "COMBO") {
    std::vector<std::string> choices;
    for (const auto& choice : input.options.value("options", Json::array()))
      choices.push_back(choice.get<std::string>());
    input.choices = Choices(std::move(choices));
    input.options.erase("options");
    input.combo_in_options = true;
  }
  return input;
}

std::string joined(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

const Json& widgets_of_choices(const Input& input) {
  static const Json none = Json::object();
  if (!input.options.is_object() || !input.is_list()) return none;
  auto found = input.options.find("formats");
  return found == input.options.end() ? none : *found;
}

class Lister {
 public:
  explicit Lister(const Json& given) : given_(given) {}

  void add(const Input& input) {
    if (input.type == kGrowing)
      add_growing(input);
    else if (input.type == kDynamicChoice)
      add_choice(input);
    else
      list.push_back(input);
    if (!widgets_of_choices(input).empty()) add_widgets(input);
  }

  std::vector<Input> list;

 private:
  void add_growing(const Input& group) {
    const Json& shape = group.options.at("template");
    const Json& element = shape.at("input").at("required").front();
    auto least = shape.value("min", 0);
    int index = 0;
    auto add_one = [&](const std::string& name) {
      auto whole = joined(group.name, name);
      bool required = index++ < least;
      if (required || given_.contains(whole)) add(from_definition(whole, element, required));
    };
    if (shape.contains("names"))
      for (const auto& name : shape["names"]) add_one(name.get<std::string>());
    else
      for (int i = 0; i < shape.at("max").get<int>(); ++i)
        add_one(shape.at("prefix").get<std::string>() + std::to_string(i));
  }

  void add_choice(const Input& input) {
    Input choice = input;
    std::vector<std::string> keys;
    for (const auto& option : input.options.at("options"))
      keys.push_back(option.at("key").get<std::string>());
    choice.choices = Choices(keys);
    list.push_back(choice);
    auto chosen = given_.find(input.name);
    if (chosen == given_.end()) return;
    for (const auto& option : input.options.at("options")) {
      if (option.at("key") != *chosen) continue;
      for (const char* section : {"required", "optional"}) {
        if (!option.at("inputs").contains(section)) continue;
        for (const auto& [name, definition] : option["inputs"][section].items()) {
          auto inner = from_definition(joined(input.name, name), definition,
                                       section == std::string_view("required"));
          // A choice inside of a choice that a prompt does not make is not there, as in ComfyUI:
          // prompts of before the node had it run.
          if (inner.type == kDynamicChoice && !given_.contains(inner.name)) continue;
          add(inner);
        }
      }
    }
  }

  void add_widgets(const Input& input) {
    auto chosen = given_.find(input.name);
    if (chosen == given_.end() || !chosen->is_string()) return;
    for (const auto& widget : widgets_of(input.options, *chosen))
      add(from_definition(widget.at(0), Json(widget.begin() + 1, widget.end()), false));
  }

  const Json& given_;
};

Input grown(std::string name, Json shape) {
  return link(std::move(name), kGrowing, {.extra = {{"template", std::move(shape)}}});
}

Json element_of(const Input& element) {
  return {{"required", {{element.name, element.definition(true)}}}};
}

/// The id that a match type input declares, also one inside of a growing list.
Json match_id(const Json& definition) {
  if (!definition.is_array() || definition.size() < 2) return nullptr;
  if (definition[0] == kMatchType) return definition[1].at("template").at("template_id");
  if (definition[0] == kGrowing)
    return match_id(definition[1].at("template").at("input").at("required").front());
  return nullptr;
}

}  // namespace

Json widgets_of(const Json& options, const std::string& chosen) {
  if (!options.is_object() || !options.contains("formats")) return Json::array();
  auto widgets = options["formats"].value(chosen, Json::array());
  return widgets.is_array() ? widgets : Json::array();
}

Input match_type(std::string name, std::string id, std::string allowed, bool lazy) {
  return link(
      std::move(name), kMatchType,
      {.lazy = lazy,
       .extra = {
           {"template", {{"template_id", std::move(id)}, {"allowed_types", std::move(allowed)}}}}});
}

Input growing(std::string name, const Input& element, std::string prefix, int min, int max) {
  return grown(
      std::move(name),
      {{"input", element_of(element)}, {"prefix", std::move(prefix)}, {"min", min}, {"max", max}});
}

Input growing(std::string name, const Input& element, std::vector<std::string> names, int min) {
  return grown(std::move(name),
               {{"input", element_of(element)}, {"names", std::move(names)}, {"min", min}});
}

Input dynamic_choice(std::string name, const std::vector<Option>& options, std::string tooltip) {
  Json list = Json::array();
  for (const auto& option : options) {
    Json inputs = {{"required", Json::object()}};
    for (const auto& input : option.inputs)
      inputs[input.required ? "required" : "optional"][input.name] = input.definition(true);
    list.push_back({{"key", option.key}, {"inputs", std::move(inputs)}});
  }
  return link(std::move(name), kDynamicChoice,
              {.tooltip = std::move(tooltip), .extra = {{"options", std::move(list)}}});
}

std::shared_ptr<const std::vector<Input>> live_inputs(const NodeType& type, const Json& given) {
  bool fixed = std::none_of(type.inputs.begin(), type.inputs.end(), [](const Input& input) {
    return input.type == kGrowing || input.type == kDynamicChoice ||
           !widgets_of_choices(input).empty();
  });
  if (fixed && !type.takes_more_links) return nullptr;
  Lister lister(given);
  for (const auto& input : type.inputs) lister.add(input);
  if (type.takes_more_links)
    for (const auto& [name, value] : given.items())
      if (!type.find_input(name) && as_link(value))
        lister.list.push_back(optional(link(name, "*")));
  return std::make_shared<const std::vector<Input>>(std::move(lister.list));
}

std::string accepted_type(const Input& input) {
  if (input.type != kMatchType) return input.type;
  return input.options.at("template").at("allowed_types").get<std::string>();
}

Json output_match_ids(const NodeType& type) {
  Json id;
  for (const auto& input : type.inputs)
    if (id.is_null()) id = match_id(input.definition(true));
  Json ids = Json::array();
  bool any = false;
  for (const auto& output : type.outputs) {
    bool matches = output.type == kMatchType;
    any = any || matches;
    ids.push_back(matches ? id : Json());
  }
  return any ? ids : Json();
}

}  // namespace distorch::graph
