#include "distorch/nodes/helpers.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "distorch/base/error.h"
#include "distorch/nodes/python_text.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::optional;
using graph::text;
using graph::Value;

namespace {

/// What it is given, shown and passed on.
void run_show(Call& call) {
  const auto& values = call.list("text");
  auto shown = Json::array();
  for (const auto& value : values) shown.push_back(value.as<Json>());
  call.ui({{"text", shown}});
  call.out_list(0, values);
}

void run_text_box(Call& call) { call.out(0, Value::constant(call.text("Text"))); }

std::string stripped(const std::string& text) {
  auto characters = characters_of(text);
  auto first = std::find_if_not(characters.begin(), characters.end(), is_white_space);
  auto last = characters.end();
  while (last != first && is_white_space(*(last - 1))) --last;
  return utf8_of({first, last});
}

/// Texts in the order of their inputs' names, without empty ones.
void run_join(Call& call) {
  auto delimiter = call.text("delimiter");
  // A line break as it is typed.
  if (delimiter == "\\n") delimiter = "\n";
  const bool clean = call.text("clean_whitespace") == "true";
  std::string joined;
  bool any = false;
  for (const char* name : {"text_a", "text_b", "text_c", "text_d"}) {
    if (!call.has(name)) continue;
    const auto& json = call.in(name).as<Json>();
    if (!json.is_string()) continue;
    auto part = json.get<std::string>();
    if (clean) part = stripped(part);
    if (part.empty()) continue;
    joined += (any ? delimiter : "") + part;
    any = true;
  }
  call.out(0, Value::constant(joined));
}

void run_int(Call& call) { call.out(0, Value::constant(call.integer("value"))); }

void run_int_to_text(Call& call) {
  call.out(0, Value::constant(std::to_string(call.integer("Int"))));
}

[[noreturn]] void refuse(const Call& call, const std::string& sentence) {
  throw Error(ErrorKind::Usage, call.place(), sentence);
}

std::int64_t power(const Call& call, std::int64_t base, std::int64_t exponent) {
  if (exponent < 0)
    refuse(call, fmt::format("{} to the power of {} is no whole number", base, exponent));
  std::int64_t result = 1;
  for (bool last = exponent == 0; !last; last = exponent == 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result))
      refuse(call, "the result does not fit into 64 bits");
    exponent >>= 1;
    if (exponent != 0 && __builtin_mul_overflow(base, base, &base))
      refuse(call, "the result does not fit into 64 bits");
  }
  return result;
}

/// Whole numbers as Python divides them: the quotient is rounded down, the rest has b's sign.
void run_math(Call& call) {
  const auto a = call.integer("a"), b = call.integer("b");
  const auto operation = call.text("operation");
  const bool divides = operation == "divide" || operation == "modulo";
  if (divides && b == 0) refuse(call, fmt::format("{} cannot be divided by 0", a));
  if (divides && b == -1 && a == std::numeric_limits<std::int64_t>::min())
    refuse(call, "the result does not fit into 64 bits");
  std::int64_t result = 0;
  bool fits = true;
  if (operation == "add") {
    fits = !__builtin_add_overflow(a, b, &result);
  } else if (operation == "subtract") {
    fits = !__builtin_sub_overflow(a, b, &result);
  } else if (operation == "multiply") {
    fits = !__builtin_mul_overflow(a, b, &result);
  } else if (divides) {
    const auto rest = a % b;
    const bool down = rest != 0 && (rest < 0) != (b < 0);
    result = operation == "divide" ? a / b - (down ? 1 : 0) : rest + (down ? b : 0);
  } else {
    result = power(call, a, b);
  }
  if (!fits) refuse(call, "the result does not fit into 64 bits");
  call.out(0, Value::constant(result));
}

/// A whole number over the range that the page offers.
graph::Input any_integer(const char* name) {
  return integer(name, {.def = 0,
                        .min = -18446744073709551615.0,
                        .max = std::uint64_t{18446744073709551615u},
                        .step = 1});
}

graph::Input text_socket(const char* name) { return text(name, {.extra = {{"forceInput", true}}}); }

void add_text_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "ShowText|pysssss",
      .display_name = "Show Text \xf0\x9f\x90\x8d",
      .category = "utils",
      .python_module = "custom_nodes.ComfyUI-Custom-Scripts",
      .inputs = {text_socket("text")},
      .hidden = {{"unique_id", "UNIQUE_ID"}, {"extra_pnginfo", "EXTRA_PNGINFO"}},
      .outputs = {{"STRING", "STRING", "", true}},
      .output_node = true,
      .input_is_list = true,
      .run = run_show,
  });
  catalog.add({
      .name = "DF_Text_Box",
      .display_name = "Text Box",
      .category = "Derfuu_Nodes/Variables",
      .python_module = "custom_nodes.Derfuu_ComfyUI_ModdedNodes",
      .inputs = {text("Text", {.def = "",
                               .multiline = true,
                               .dynamic_prompts = false,
                               .extra = {{"forceInput", false}}})},
      .outputs = {"STRING"},
      .run = run_text_box,
  });
  catalog.add({
      .name = "Text Concatenate",
      .display_name = "Text Concatenate",
      .category = "WAS Suite/Text",
      .python_module = "custom_nodes.was-node-suite-comfyui",
      .inputs = {text("delimiter", {.def = ", "}), choice("clean_whitespace", {"true", "false"}),
                 optional(text_socket("text_a")), optional(text_socket("text_b")),
                 optional(text_socket("text_c")), optional(text_socket("text_d"))},
      .outputs = {"STRING"},
      .run = run_join,
  });
}

}  // namespace

void add_helper_nodes(graph::Catalog& catalog) {
  add_text_nodes(catalog);
  catalog.add({
      .name = "Int",
      .display_name = "Int",
      .category = "Logic",
      .python_module = "custom_nodes.ComfyUI-Logic",
      .inputs = {integer("value", {.def = 0})},
      .outputs = {"INT"},
      .run = run_int,
  });
  catalog.add({
      .name = "Int2String",
      .display_name = "Int2String",
      .category = "Chibi-Nodes/Text",
      .python_module = "custom_nodes.ComfyUI-Chibi-Nodes",
      .inputs = {integer("Int", {.extra = {{"forceInput", true}}})},
      .outputs = {"STRING"},
      .run = run_int_to_text,
  });
  catalog.add({
      .name = "easy mathInt",
      .display_name = "Math Int",
      .category = "EasyUse/Logic/Math",
      .python_module = "custom_nodes.ComfyUI-Easy-Use",
      .inputs = {any_integer("a"), any_integer("b"),
                 choice("operation", {"add", "subtract", "multiply", "divide", "modulo", "power"})},
      .outputs = {"INT"},
      .run = run_math,
  });
}

}  // namespace distorch::nodes
