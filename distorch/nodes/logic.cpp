#include <ATen/core/Tensor.h>

#include "distorch/base/error.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/nodes/catalog.h"

namespace distorch::nodes {

using graph::Call;
using graph::Json;
using graph::link;
using graph::Value;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_logic";
constexpr int kMost = 10;  // inputs of a growing list

/// What Python takes for true: neither zero, nothing nor empty.
bool truth(const Value& value) {
  if (value.empty()) return false;
  if (!value.is<Json>()) return true;
  const auto& json = value.as<Json>();
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number()) return json.get<double>() != 0;
  if (json.is_string()) return !json.get_ref<const std::string&>().empty();
  return !json.empty();
}

std::string chosen(const Call& call) { return call.boolean("switch") ? "on_true" : "on_false"; }

// Only the branch that is taken is computed.
std::vector<std::string> needed_branch(const Call& call) {
  auto branch = chosen(call);
  return call.has(branch) ? std::vector<std::string>() : std::vector{branch};
}

void run_switch(Call& call) { call.out(0, call.in(chosen(call))); }

void run_not(Call& call) { call.out(0, Value::constant(!truth(call.in("value")))); }

/// The values of a growing list, in order, gaps left out.
std::vector<std::string> members(const Call& call, const std::string& prefix) {
  std::vector<std::string> names;
  for (int i = 0; i < kMost; ++i)
    if (auto name = prefix + std::to_string(i); !call.list(name).empty()) names.push_back(name);
  return names;
}

void run_and(Call& call) {
  bool all = true;
  for (const auto& name : members(call, "values.value")) all = all && truth(call.in(name));
  call.out(0, Value::constant(all));
}

void run_or(Call& call) {
  bool any = false;
  for (const auto& name : members(call, "values.value")) any = any || truth(call.in(name));
  call.out(0, Value::constant(any));
}

// The page adds the place of the choice, and the choices themselves, as further inputs.
void run_custom_choice(Call& call) {
  call.out(0, call.in("choice"));
  std::int64_t index = 0;
  const auto& prompt = call.prompt();
  if (auto node = prompt.find(call.node_id()); node != prompt.end()) {
    const auto& inputs = node->at("inputs");
    if (auto given = inputs.find("index"); given != inputs.end() && given->is_number_integer())
      index = given->get<std::int64_t>();
  }
  call.out(1, Value::constant(index));
}

void run_list(Call& call) {
  std::vector<Value> all;
  for (const auto& name : members(call, "inputs.input"))
    for (const auto& value : call.list(name)) all.push_back(value);
  call.out_list(0, std::move(all));
}

void add_combination(graph::Catalog& catalog, const char* name, const char* title,
                     const char* description, void (*run)(Call&)) {
  catalog.add({
      .name = name,
      .display_name = title,
      .category = "utilities/logic",
      .description = description,
      .python_module = kModule,
      .inputs = {graph::growing("values", link("value", "*"), "value", 1, kMost)},
      .outputs = {"BOOLEAN"},
      .newer_schema = true,
      .run = run,
  });
}

}  // namespace

void add_logic_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "ComfySwitchNode",
      .display_name = "If/Else Switch",
      .category = "utilities/logic",
      .python_module = kModule,
      .inputs = {graph::boolean("switch"), graph::match_type("on_false", "switch", "*", true),
                 graph::match_type("on_true", "switch", "*", true)},
      .outputs = {{graph::kMatchType, "output"}},
      .experimental = true,
      .newer_schema = true,
      .run = run_switch,
      .needed_lazy = needed_branch,
  });
  catalog.add({
      .name = "ComfyNotNode",
      .display_name = "Not",
      .category = "utilities/logic",
      .description = "True for what counts as false: zero, an empty text, an empty list.",
      .python_module = kModule,
      .inputs = {link("value", "*")},
      .outputs = {"BOOLEAN"},
      .newer_schema = true,
      .run = run_not,
  });
  add_combination(catalog, "ComfyAndNode", "And", "True where every value counts as true.",
                  run_and);
  add_combination(catalog, "ComfyOrNode", "Or", "True where one value at least counts as true.",
                  run_or);
  catalog.add({
      .name = "CustomCombo",
      .display_name = "Custom Combo",
      .category = "utilities",
      .python_module = kModule,
      .inputs = {graph::choice("choice", graph::Choices(std::vector<std::string>()))},
      .outputs = {"STRING", {"INT", "INDEX"}},
      .experimental = true,
      .newer_schema = true,
      .run = run_custom_choice,
      // The choices are the workflow's own: anything is one.
      .checks = {{{"choice"}, [](const Call&) { return std::string(); }}},
  });
  catalog.add({
      .name = "CreateList",
      .display_name = "Create List",
      .category = "utilities",
      .python_module = "comfy_extras.nodes_toolkit",
      .inputs = {graph::growing("inputs", graph::match_type("input", "type"), "input", 1, kMost)},
      .outputs = {{graph::kMatchType, "list", "", true}},
      .newer_schema = true,
      .input_is_list = true,
      .run = run_list,
  });
}

}  // namespace distorch::nodes
