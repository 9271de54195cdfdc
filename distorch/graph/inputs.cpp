#include "distorch/graph/inputs.h"

namespace distorch::graph {
namespace {

// Puts `value` under `key` unless it is null; makes the object on the first use.
void put(Json& options, const char* key, const Json& value) {
  if (value.is_null()) return;
  if (options.is_null()) options = Json::object();
  options[key] = value;
}

void put_text(Json& options, const char* key, const std::string& value) {
  if (!value.empty()) put(options, key, value);
}

void put_flag(Json& options, const char* key, bool value) {
  if (value) put(options, key, true);
}

void merge(Json& options, const Json& extra) {
  if (!extra.is_object()) return;
  if (options.is_null()) options = Json::object();
  for (auto& [key, value] : extra.items()) options[key] = value;
}

Json number_options(const NumberOptions& from) {
  Json options;
  put(options, "default", from.def);
  put(options, "min", from.min);
  put(options, "max", from.max);
  put(options, "step", from.step);
  put(options, "round", from.round);
  put_text(options, "display", from.display);
  put_flag(options, "control_after_generate", from.control_after_generate);
  put_text(options, "tooltip", from.tooltip);
  merge(options, from.extra);
  return options;
}

Input make(std::string name, std::string type, Json options) {
  Input input;
  input.name = std::move(name);
  input.type = std::move(type);
  input.options = std::move(options);
  return input;
}

}  // namespace

Choices::Choices(std::vector<std::string> fixed)
    : read_([fixed = Json(std::move(fixed))] { return fixed; }) {}

Choices::Choices(std::initializer_list<const char*> fixed)
    : Choices(std::vector<std::string>(fixed.begin(), fixed.end())) {}

bool Input::is_widget() const {
  if (flag("forceInput")) return false;
  return type == "INT" || type == "FLOAT" || type == "STRING" || type == "BOOLEAN" ||
         type == "COMBO";
}

bool Input::flag(const char* option) const {
  auto found = options.find(option);
  return found != options.end() && found->is_boolean() && found->get<bool>();
}

Json Input::default_value() const {
  if (options.is_object() && options.contains("default")) return options["default"];
  if (!is_list()) return nullptr;
  Json list = choices.read();
  return list.empty() ? Json() : list.front();
}

Json Input::definition(bool newer) const {
  Json result = Json::array();
  if (!is_list()) {
    result.push_back(type);
    if (!options.is_null())
      result.push_back(options);
    else if (newer)
      result.push_back(Json::object());
    return result;
  }
  if (newer || combo_in_options) {
    Json shown = options.is_null() ? Json::object() : options;
    if (newer && !shown.contains("multiselect")) shown["multiselect"] = false;
    if (choices) shown["options"] = choices.read();
    result.push_back("COMBO");
    result.push_back(std::move(shown));
    return result;
  }
  result.push_back(choices.read());
  if (!options.is_null()) result.push_back(options);
  return result;
}

Input link(std::string name, std::string type, LinkOptions from) {
  Json options;
  put_flag(options, "lazy", from.lazy);
  put_text(options, "tooltip", from.tooltip);
  merge(options, from.extra);
  return make(std::move(name), std::move(type), std::move(options));
}

Input integer(std::string name, NumberOptions from) {
  return make(std::move(name), "INT", number_options(from));
}

Input number(std::string name, NumberOptions from) {
  return make(std::move(name), "FLOAT", number_options(from));
}

Input text(std::string name, TextOptions from) {
  Json options;
  put(options, "default", from.def);
  put(options, "multiline", from.multiline);
  put(options, "dynamicPrompts", from.dynamic_prompts);
  put_text(options, "tooltip", from.tooltip);
  merge(options, from.extra);
  return make(std::move(name), "STRING", std::move(options));
}

Input boolean(std::string name, BooleanOptions from) {
  Json options;
  put(options, "default", from.def);
  put(options, "label_on", from.label_on);
  put(options, "label_off", from.label_off);
  put_text(options, "tooltip", from.tooltip);
  merge(options, from.extra);
  return make(std::move(name), "BOOLEAN", std::move(options));
}

Input choice(std::string name, Choices choices, ChoiceOptions from) {
  Json options;
  put(options, "default", from.def);
  put_flag(options, "image_upload", from.image_upload);
  put_text(options, "tooltip", from.tooltip);
  merge(options, from.extra);
  Input input = make(std::move(name), "COMBO", std::move(options));
  input.choices = std::move(choices);
  input.combo_in_options = from.combo;
  return input;
}

Input optional(Input input) {
  input.required = false;
  return input;
}

}  // namespace distorch::graph
