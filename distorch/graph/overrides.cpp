#include "distorch/graph/overrides.h"

#include <fmt/format.h>

#include <algorithm>

#include "distorch/base/text.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/graph/json_text.h"
#include "distorch/graph/near_names.h"
#include "distorch/graph/validation.h"

namespace distorch::graph {
namespace {

constexpr std::size_t kListed = 30;

std::string member(const Json& node, const char* name) {
  if (!node.is_object() || !node.contains(name) || !node[name].is_string()) return "";
  return node[name].get<std::string>();
}

std::string title_of(const Json& node) {
  return node.is_object() && node.contains("_meta") ? member(node["_meta"], "title") : "";
}

std::string describe(const std::string& id, const Json& node) {
  std::string title = title_of(node), type = member(node, "class_type");
  return title.empty() || title == type ? fmt::format("{} ({})", id, type)
                                        : fmt::format("{} ({} \"{}\")", id, type, title);
}

std::string candidates(const Json& prompt, const std::vector<std::string>& ids) {
  std::string text;
  for (std::size_t i = 0; i < ids.size() && i < kListed; ++i)
    text += (i ? ", " : "") + describe(ids[i], prompt[ids[i]]);
  return ids.size() > kListed ? text + ", ..." : text;
}

std::string find_node(const Json& prompt, const Override& change, const std::string& where) {
  if (prompt.contains(change.node)) return change.node;
  std::vector<std::string> all;
  for (auto& [id, node] : prompt.items()) all.push_back(id);
  for (bool exact : {true, false})
    for (auto* name_of : {+[](const Json& node) { return title_of(node); },
                          +[](const Json& node) { return member(node, "class_type"); }}) {
      std::vector<std::string> matching;
      for (auto& id : all) {
        std::string name = name_of(prompt[id]);
        if (exact ? name == change.node : lower(name) == lower(change.node)) matching.push_back(id);
      }
      if (matching.size() == 1) return matching.front();
      if (matching.size() > 1)
        throw Error(ErrorKind::Usage, where,
                    fmt::format("'{}' means several nodes: {}. Use an id.", change.node,
                                candidates(prompt, matching)));
    }
  std::vector<std::string> names;
  for (auto& id : all) {
    names.push_back(title_of(prompt[id]));
    names.push_back(member(prompt[id], "class_type"));
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  throw Error(ErrorKind::Usage, where,
              fmt::format("there is no node '{}'.{} Nodes: {}", change.node,
                          did_you_mean(change.node, names), candidates(prompt, all)));
}

Json read_boolean(const std::string& text, const std::string& where) {
  std::string word = lower(text);
  for (const char* yes : {"true", "yes", "on", "1", "enable"})
    if (word == yes) return true;
  for (const char* no : {"false", "no", "off", "0", "disable"})
    if (word == no) return false;
  throw Error(ErrorKind::Usage, where, fmt::format("'{}' is neither true nor false", text));
}

Json read_value(const Input& input, const std::string& text, const std::string& where) {
  if (input.type == "BOOLEAN") return read_boolean(text, where);
  if (input.is_list()) {
    // The choice itself, which may be no text.
    for (auto& entry : input.choices.read())
      if (python_str(entry) == text) return entry;
    return text;
  }
  if (!input.is_widget() && input.type != "*")
    throw Error(ErrorKind::Usage, where,
                fmt::format("it takes a link of type {}, not a value", input.type));
  if (input.type == "*") {
    Json value = Json::parse(text, nullptr, false);
    return value.is_primitive() && !value.is_discarded() ? value : Json(text);
  }
  std::string reason;
  auto value = convert_constant(text, input.type, reason);
  if (!value)
    throw Error(ErrorKind::Usage, where,
                fmt::format("'{}' is no {}: {}", text, input.type, reason));
  return *value;
}

}  // namespace

Override parse_override(const std::string& text) {
  std::size_t equals = text.find('=');
  std::size_t dot = equals == std::string::npos ? equals : text.rfind('.', equals);
  if (dot == std::string::npos || dot == 0 || dot + 1 == equals)
    throw Error(ErrorKind::Usage, "--set", fmt::format("'{}' is not NODE.INPUT=VALUE", text));
  return {text.substr(0, dot), text.substr(dot + 1, equals - dot - 1), text.substr(equals + 1)};
}

void apply_override(Json& prompt, const Override& change, const Catalog& catalog) {
  std::string where = fmt::format("--set {}.{}", change.node, change.input);
  std::string id = find_node(prompt, change, where);
  Json& node = prompt[id];
  const NodeType& type = catalog.get(member(node, "class_type"));
  Json& inputs = node["inputs"];
  if (!inputs.is_object()) inputs = Json::object();
  // What the choices of the prompt bring counts too.
  auto live = live_inputs(type, inputs);
  const auto& declared = live ? *live : type.inputs;
  auto input = std::find_if(declared.begin(), declared.end(),
                            [&](const Input& one) { return one.name == change.input; });
  if (input == declared.end()) {
    std::vector<std::string> names;
    for (auto& one : declared) names.push_back(one.name);
    throw Error(
        ErrorKind::Usage, where,
        fmt::format("node {} has no input '{}'.{} Inputs: {}", describe(id, node), change.input,
                    did_you_mean(change.input, names), fmt::join(names, ", ")));
  }
  inputs[change.input] = read_value(*input, change.value, where);
}

void apply_overrides(Json& prompt, const std::vector<std::string>& texts, const Catalog& catalog) {
  for (auto& text : texts) apply_override(prompt, parse_override(text), catalog);
}

}  // namespace distorch::graph
