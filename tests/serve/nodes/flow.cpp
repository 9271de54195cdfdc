#include <map>
#include <set>

#include "distorch/graph/validation.h"
#include "tests/serve/nodes/testing_nodes.h"

namespace distorch::testing_nodes {

using namespace graph;

namespace {

constexpr const char* kCategory = "Testing/Flow";
constexpr int kValues = 5;  // that a loop carries

std::string initial(int i) { return "initial_value" + std::to_string(i); }

Input raw(const std::string& name, const char* type) {
  return link(name, type, {.extra = {{"rawLink", true}}});
}

std::vector<Input> with_values(std::vector<Input> inputs, int first, bool raw_links = false) {
  for (int i = first; i < kValues; ++i)
    inputs.push_back(optional(raw_links ? raw(initial(i), "*") : link(initial(i), "*")));
  return inputs;
}

std::vector<Output> and_values(std::vector<Output> outputs, int first) {
  for (int i = first; i < kValues; ++i) outputs.push_back(Output("*", "value" + std::to_string(i)));
  return outputs;
}

/// What was given as initial value `i`; a constant null where nothing was.
Value given(const Call& call, int i) {
  return call.has(initial(i)) ? call.in(initial(i)) : Value::constant(nullptr);
}

// --- a loop while a condition holds

void run_while_open(Call& call) {
  call.out(0, Value::constant("stub"));
  for (int i = 0; i < kValues; ++i) call.out(static_cast<std::size_t>(i + 1), given(call, i));
}

/// Which nodes read from each node that `last` depends on.
std::map<std::string, std::set<std::string>> readers_above(const Call& call,
                                                           const std::string& last) {
  std::map<std::string, std::set<std::string>> readers;
  std::vector<std::string> stack{last};
  while (!stack.empty()) {
    auto id = stack.back();
    stack.pop_back();
    const Json* node = call.node_of_run(id);
    if (!node || !node->contains("inputs")) continue;
    for (const auto& [name, value] : (*node)["inputs"].items()) {
      auto source = as_link(value);
      if (!source) continue;
      if (!readers.count(source->node)) stack.push_back(source->node);
      readers[source->node].insert(id);
    }
  }
  return readers;
}

/// The nodes of the loop: those between `first` and `last`, with both.
std::set<std::string> nodes_between(const Call& call, const std::string& first,
                                    const std::string& last) {
  auto readers = readers_above(call, last);
  std::set<std::string> inside{first};
  std::vector<std::string> stack{first};
  while (!stack.empty()) {
    auto id = stack.back();
    stack.pop_back();
    for (const auto& reader : readers[id])
      if (inside.insert(reader).second) stack.push_back(reader);
  }
  inside.insert(last);
  return inside;
}

/// Once more the nodes of the loop, beginning with what this round gave; the copy of the end is
/// called Recurse, so that names do not grow with each round.
void run_while_close(Call& call) {
  if (!call.boolean("condition")) {
    for (int i = 0; i < kValues; ++i) call.out(static_cast<std::size_t>(i), given(call, i));
    return;
  }
  auto first = as_link(call.get<Json>("flow_control"))->node;
  const auto& last = call.node_id();
  auto inside = nodes_between(call, first, last);
  auto local = [&](const std::string& id) { return id == last ? "Recurse" : id; };
  Json round = Json::object();
  for (const auto& id : inside) {
    const Json& node = *call.node_of_run(id);
    Json copy = {{"class_type", node["class_type"]},
                 {"inputs", node["inputs"]},
                 {"override_display_id", id}};
    for (auto& [name, value] : copy["inputs"].items())
      if (auto source = as_link(value); source && inside.count(source->node))
        value[0] = local(source->node);
    round[local(id)] = std::move(copy);
  }
  for (int i = 0; i < kValues; ++i) {
    Json& inputs = round[first]["inputs"];
    inputs.erase(initial(i));
    if (call.has(initial(i))) inputs[initial(i)] = call.hold(call.in(initial(i)));
    call.out_link(static_cast<std::size_t>(i), {"Recurse", i});
  }
  call.expand(std::move(round));
}

// --- a loop of a number of rounds, made of the other

void run_for_open(Call& call) {
  auto remaining = call.integer(call.has(initial(0)) ? initial(0) : "remaining");
  Json inputs = {{"condition", remaining}, {initial(0), remaining}};
  call.out(0, Value::constant("stub"));
  call.out(1, Value::constant(remaining));
  for (int i = 1; i < kValues; ++i) {
    if (call.has(initial(i))) inputs[initial(i)] = call.hold(call.in(initial(i)));
    call.out(static_cast<std::size_t>(i + 1), given(call, i));
  }
  call.expand({{"open", {{"class_type", "TestWhileLoopOpen"}, {"inputs", std::move(inputs)}}}});
}

void run_for_close(Call& call) {
  Json flow = call.get<Json>("flow_control");
  Json inputs = {{"flow_control", flow}, {"condition", {"more", 0}}, {initial(0), {"left", 0}}};
  for (int i = 1; i < kValues; ++i) {
    if (call.has(initial(i))) inputs[initial(i)] = call.get<Json>(initial(i));
    call.out_link(static_cast<std::size_t>(i - 1), {"close", i});
  }
  call.expand({{"left",
                {{"class_type", "TestIntMathOperation"},
                 {"inputs", {{"operation", "subtract"}, {"a", {flow[0], 1}}, {"b", 1}}}}},
               {"more", {{"class_type", "TestToBoolNode"}, {"inputs", {{"value", {"left", 0}}}}}},
               {"close", {{"class_type", "TestWhileLoopClose"}, {"inputs", std::move(inputs)}}}});
}

void run_blocker(Call& call) {
  if (!call.boolean("block")) return call.out(0, call.in("input"));
  call.out(0, call.boolean("verbose") ? Value::blocker("Blocked Execution") : Value::blocker());
}

void add_while_loop(Catalog& catalog) {
  catalog.add({.name = "TestWhileLoopOpen",
               .display_name = "While Loop Open",
               .category = kCategory,
               .inputs = with_values({boolean("condition", {.def = true})}, 0),
               .outputs = and_values({Output("FLOW_CONTROL")}, 0),
               .run = run_while_open});
  catalog.add({.name = "TestWhileLoopClose",
               .display_name = "While Loop Close",
               .category = kCategory,
               .inputs = with_values({raw("flow_control", "FLOW_CONTROL"),
                                      boolean("condition", {.extra = {{"forceInput", true}}})},
                                     0),
               .hidden = {{"dynprompt", "DYNPROMPT"}, {"unique_id", "UNIQUE_ID"}},
               .outputs = and_values({}, 0),
               .run = run_while_close});
}

void add_for_loop(Catalog& catalog) {
  catalog.add({.name = "TestForLoopOpen",
               .display_name = "For Loop Open",
               .category = kCategory,
               .inputs = with_values(
                   {integer("remaining", {.def = 1, .min = 0, .max = 100000, .step = 1})}, 0),
               .outputs = and_values(
                   {Output("FLOW_CONTROL", "flow_control"), Output("INT", "remaining")}, 1),
               .run = run_for_open});
  catalog.add({.name = "TestForLoopClose",
               .display_name = "For Loop Close",
               .category = kCategory,
               .inputs = with_values({raw("flow_control", "FLOW_CONTROL")}, 1, true),
               .outputs = and_values({}, 1),
               .run = run_for_close});
}

}  // namespace

void add_flow_nodes(Catalog& catalog) {
  add_while_loop(catalog);
  add_for_loop(catalog);
  catalog.add({.name = "TestExecutionBlocker",
               .display_name = "Execution Blocker",
               .category = kCategory,
               .inputs = {link("input", "*"), boolean("block"), boolean("verbose", {.def = false})},
               .outputs = {{"*", "output"}},
               .run = run_blocker});
}

}  // namespace distorch::testing_nodes
