#include <cmath>

#include "distorch/graph/json_text.h"
#include "tests/serve/nodes/testing_nodes.h"

namespace distorch::testing_nodes {

using namespace graph;

namespace {

constexpr int kListInputs = 10;

/// What travels as ACCUMULATION.
using Pile = std::vector<Value>;

Input pile() { return link("accumulation", "ACCUMULATION"); }

Value piled(Pile values) { return Value::of("ACCUMULATION", std::move(values)); }

std::size_t place_in(const Pile& values, const Call& call) {
  auto index = call.integer("index");
  auto size = static_cast<std::int64_t>(values.size());
  if (index < 0) index += size;
  if (index < 0 || index >= size) throw Error(ErrorKind::Usage, call.place(), "index out of range");
  return static_cast<std::size_t>(index);
}

void run_make_list(Call& call) {
  std::vector<Value> values;
  for (int i = 0; i < kListInputs; ++i)
    if (auto name = "value" + std::to_string(i); call.has(name)) values.push_back(call.in(name));
  call.out_list(0, std::move(values));
}

void run_accumulate(Call& call) {
  Pile values;
  if (call.has("accumulation")) values = call.get<Pile>("accumulation");
  values.push_back(call.in("to_add"));
  call.out(0, piled(std::move(values)));
}

/// Takes the first or the last one off: what is left, and it.
void take_off(Call& call, bool first) {
  Pile values = call.get<Pile>("accumulation");
  Value taken = Value::constant(nullptr);
  if (!values.empty()) {
    auto at = first ? values.begin() : values.end() - 1;
    taken = *at;
    values.erase(at);
  }
  call.out(0, piled(std::move(values)));
  call.out(1, taken);
}

void run_set_item(Call& call) {
  Pile values = call.get<Pile>("accumulation");
  values[place_in(values, call)] = call.in("value");
  call.out(0, piled(std::move(values)));
}

void add_accumulations(Catalog& catalog) {
  auto add = [&](const char* name, std::vector<Input> inputs, std::vector<Output> outputs,
                 std::function<void(Call&)> run, bool takes_lists = false) {
    catalog.add({.name = name,
                 .category = "Testing/Lists",
                 .inputs = std::move(inputs),
                 .outputs = std::move(outputs),
                 .input_is_list = takes_lists,
                 .run = std::move(run)});
  };
  Input index = integer("index", {.def = 0, .step = 1});
  add("TestAccumulateNode", {link("to_add", "*"), optional(pile())}, {"ACCUMULATION"},
      run_accumulate);
  add("TestAccumulationHeadNode", {pile()}, {"ACCUMULATION", "*"},
      [](Call& call) { take_off(call, true); });
  add("TestAccumulationTailNode", {pile()}, {"ACCUMULATION", "*"},
      [](Call& call) { take_off(call, false); });
  add("TestAccumulationToListNode", {pile()}, {{"*", "", "", true}},
      [](Call& call) { call.out_list(0, call.get<Pile>("accumulation")); });
  add(
      "TestListToAccumulationNode", {link("list", "*")}, {"ACCUMULATION"},
      [](Call& call) { call.out(0, piled(call.list("list"))); }, true);
  add("TestAccumulationGetLengthNode", {pile()}, {"INT"},
      [](Call& call) { call.out(0, Value::constant(call.get<Pile>("accumulation").size())); });
  add("TestAccumulationGetItemNode", {pile(), index}, {"*"}, [](Call& call) {
    const auto& values = call.get<Pile>("accumulation");
    call.out(0, values[place_in(values, call)]);
  });
  add("TestAccumulationSetItemNode", {pile(), index, link("value", "*")}, {"ACCUMULATION"},
      run_set_item);
}

// --- conditions and arithmetic

template <class Number>
bool compared(Number a, Number b, const std::string& how) {
  if (how == "==") return a == b;
  if (how == "!=") return a != b;
  if (how == "<") return a < b;
  if (how == ">") return a > b;
  if (how == "<=") return a <= b;
  return a >= b;
}

std::int64_t divided(std::int64_t a, std::int64_t b, const Call& call) {
  if (b == 0) throw Error(ErrorKind::Usage, call.place(), "division by zero");
  auto quotient = a / b;
  return quotient * b != a && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

void run_math(Call& call) {
  auto a = call.integer("a"), b = call.integer("b");
  auto how = call.text("operation");
  std::int64_t result = how == "add"        ? a + b
                        : how == "subtract" ? a - b
                        : how == "multiply" ? a * b
                        : how == "divide"   ? divided(a, b, call)
                        : how == "modulo"   ? a - b * divided(a, b, call)
                                            : static_cast<std::int64_t>(std::pow(a, b));
  call.out(0, Value::constant(result));
}

bool holds(const Value& value) {
  if (!value.is<Json>()) return true;
  const auto& json = value.as<Json>();
  if (json.is_number()) return json.get<double>() != 0;
  if (json.is_boolean()) return json.get<bool>();
  return !json.empty();
}

void run_bool_operation(Call& call) {
  bool a = call.boolean("a"), b = call.boolean("b");
  auto how = call.text("op");
  call.out(0, Value::constant(how == "a AND b"   ? a && b
                              : how == "a OR b"  ? a || b
                              : how == "a XOR b" ? a != b
                                                 : !a));
}

void add_logic(Catalog& catalog) {
  constexpr double kMost = 18446744073709551615.0;
  Choices comparisons = {"==", "!=", "<", ">", "<=", ">="};
  auto whole = [](const char* name) {
    return integer(name, {.def = 0, .min = -kMost, .max = kMost, .step = 1});
  };
  auto real = [](const char* name) {
    return number(name, {.def = 0, .min = -999999999999.0, .max = 999999999999.0, .step = 1});
  };
  auto add = [&](const char* name, std::vector<Input> inputs, const char* output,
                 std::function<void(Call&)> run) {
    catalog.add({.name = name,
                 .category = "Testing/Logic",
                 .inputs = std::move(inputs),
                 .outputs = {output},
                 .run = std::move(run)});
  };
  add("TestIntConditions", {whole("a"), whole("b"), choice("operation", comparisons)}, "BOOLEAN",
      [](Call& call) {
        call.out(0, Value::constant(
                        compared(call.integer("a"), call.integer("b"), call.text("operation"))));
      });
  add("TestFloatConditions", {real("a"), real("b"), choice("operation", comparisons)}, "BOOLEAN",
      [](Call& call) {
        call.out(0, Value::constant(
                        compared(call.number("a"), call.number("b"), call.text("operation"))));
      });
  add("TestIntMathOperation",
      {whole("a"), whole("b"),
       choice("operation", {"add", "subtract", "multiply", "divide", "modulo", "power"})},
      "INT", run_math);
  add("TestToBoolNode", {link("value", "*"), optional(boolean("invert", {.def = false}))},
      "BOOLEAN", [](Call& call) {
        call.out(0, Value::constant(holds(call.in("value")) != call.boolean("invert")));
      });
  add("TestBoolOperationNode",
      {boolean("a"), boolean("b"), choice("op", {"a AND b", "a OR b", "a XOR b", "NOT a"})},
      "BOOLEAN", run_bool_operation);
}

}  // namespace

void add_list_nodes(Catalog& catalog) {
  std::vector<Input> values = {link("value1", "*")};
  for (int i = 0; i < kListInputs; ++i)
    if (i != 1) values.push_back(optional(link("value" + std::to_string(i), "*")));
  catalog.add({.name = "TestMakeListNode",
               .display_name = "Make List",
               .category = "Testing/Lists",
               .inputs = values,
               .outputs = {{"*", "", "", true}},
               .run = run_make_list});
  add_accumulations(catalog);
  add_logic(catalog);
}

}  // namespace distorch::testing_nodes
