#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/math_expression.h"
#include "distorch/nodes/resize.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::number;
using graph::Value;

namespace {

/// The names of an expression's values: "a" to "z".
std::vector<std::string> letters() {
  std::vector<std::string> names;
  for (char c = 'a'; c <= 'z'; ++c) names.emplace_back(1, c);
  return names;
}

Number number_of(const Call& call, const std::string& input) {
  const auto& value = call.in(input).as<Json>();
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_float()) return value.get<double>();
  if (value.is_number()) return call.integer(input);
  throw Error(ErrorKind::Usage, call.place(), "input '" + input + "' is no number");
}

/// A float cut off at its point; Error(Usage) beyond 64 bits.
std::int64_t cut_off(const Call& call, double value) {
  if (!(value >= -0x1p63 && value < 0x1p63))
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("{} does not fit into a whole number of 64 bits", value));
  return static_cast<std::int64_t>(value);
}

void run_expression(Call& call) {
  std::vector<std::pair<std::string, Number>> names;
  for (const auto& letter : letters())
    if (call.has("values." + letter))
      names.emplace_back(letter, number_of(call, "values." + letter));
  auto result = evaluate(call.text("expression"), names);
  auto value = to_double(result);
  if (!std::isfinite(value))
    throw Error(ErrorKind::Usage, call.place(), "the expression's value is not finite");
  const auto* exact = std::get_if<std::int64_t>(&result);
  call.out(0, Value::constant(value));
  call.out(1, Value::constant(exact ? *exact : cut_off(call, value)));
  call.out(2, Value::constant(value != 0));
}

/// A text as Python's float() reads it, in full.
double parsed(const Call& call, const std::string& text) {
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::logic_error&) {
    used = 0;
  }
  bool decimal = text.find_first_not_of("0123456789+-.eE") == text.npos;
  if (used == 0 || used != text.size() || !decimal)
    throw Error(ErrorKind::Usage, call.place(), "'" + text + "' is no number");
  return value;
}

void run_convert(Call& call) {
  const auto& given = call.in("value").as<Json>();
  if (!given.is_string()) {
    auto value = number_of(call, "value");
    const auto* exact = std::get_if<std::int64_t>(&value);
    call.out(0, Value::constant(to_double(value)));
    call.out(1, Value::constant(exact ? *exact : cut_off(call, to_double(value))));
    return;
  }
  auto text = given.get<std::string>();
  auto space = " \t\r\n\f\v";
  auto first = text.find_first_not_of(space);
  text = first == text.npos ? "" : text.substr(first, text.find_last_not_of(space) + 1 - first);
  auto value = parsed(call, text);
  call.out(0, Value::constant(value));
  bool is_whole = text.find_first_of(".eE") == text.npos && std::abs(value) < 0x1p63;
  call.out(1, Value::constant(is_whole ? std::stoll(text) : cut_off(call, value)));
}

struct Aspect {
  const char* name;
  double width, height;
};
constexpr Aspect kAspects[] = {
    {"1:1 (Square)", 1, 1},       {"2:3 (Portrait Photo)", 2, 3},
    {"3:2 (Photo)", 3, 2},        {"3:4 (Portrait Standard)", 3, 4},
    {"4:3 (Standard)", 4, 3},     {"9:16 (Portrait Widescreen)", 9, 16},
    {"16:9 (Widescreen)", 16, 9}, {"21:9 (Ultrawide)", 21, 9},
};

graph::Choices aspect_names() {
  std::vector<std::string> names;
  for (const auto& aspect : kAspects) names.emplace_back(aspect.name);
  return graph::Choices(std::move(names));
}

void run_resolution(Call& call) {
  auto name = call.text("aspect_ratio");
  auto aspect = std::find_if(std::begin(kAspects), std::end(kAspects),
                             [&](const Aspect& one) { return name == one.name; });
  if (aspect == std::end(kAspects))
    throw Error(ErrorKind::Usage, call.place(), "there is no aspect '" + name + "'");
  auto multiple = call.integer("multiple");
  auto pixels = call.number("megapixels") * 1024 * 1024;
  auto scale = std::sqrt(pixels / (aspect->width * aspect->height));
  auto side = [&](double share) {
    return round_half_even(share * scale / static_cast<double>(multiple)) * multiple;
  };
  call.out(0, Value::constant(side(aspect->width)));
  call.out(1, Value::constant(side(aspect->height)));
}

void run_seed(Call& call) { call.out(0, call.in("seed")); }

void add_numbers(graph::Catalog& catalog) {
  catalog.add({
      .name = "ComfyNumberConvert",
      .display_name = "Convert Number",
      .category = "utilities",
      .python_module = "comfy_extras.nodes_number_convert",
      .inputs = {graph::link("value", "INT,FLOAT,STRING,BOOLEAN",
                             {.extra = {{"display_name", "value"}}})},
      .outputs = {"FLOAT", "INT"},
      .newer_schema = true,
      .run = run_convert,
  });
  catalog.add({
      .name = "SeedNode",
      .display_name = "Seed",
      .category = "utilities",
      .python_module = "comfy_extras.nodes_seed",
      .inputs = {integer(
          "seed",
          {.min = 0, .max = 9223372036854775807, .extra = {{"control_after_generate", "fixed"}}})},
      .outputs = {{"INT", "seed"}},
      .newer_schema = true,
      .run = run_seed,
  });
}

}  // namespace

void add_math_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "ComfyMathExpression",
      .display_name = "Math Expression",
      .category = "utilities",
      .python_module = "comfy_extras.nodes_math",
      .inputs = {graph::text("expression", {.def = "a + b", .multiline = true}),
                 graph::growing("values", graph::link("value", "FLOAT,INT,BOOLEAN"), letters(), 1)},
      .outputs = {"FLOAT", "INT", {"BOOLEAN", "BOOL"}},
      .newer_schema = true,
      .run = run_expression,
  });
  catalog.add({
      .name = "ResolutionSelector",
      .display_name = "Resolution Selector",
      .category = "utilities",
      .description = "Width and height for a shape of picture and a number of pixels.",
      .python_module = "comfy_extras.nodes_resolution",
      .inputs = {choice("aspect_ratio", aspect_names(),
                        {.def = "1:1 (Square)", .tooltip = "Width to height."}),
                 number("megapixels", {.def = 1.0,
                                       .min = 0.1,
                                       .max = 16.0,
                                       .step = 0.1,
                                       .tooltip = "Millions of pixels, of 1024 x 1024 each."}),
                 integer("multiple", {.def = 8,
                                      .min = 8,
                                      .max = 128,
                                      .step = 4,
                                      .tooltip = "Both sides become multiples of this.",
                                      .extra = {{"advanced", true}}})},
      .outputs = {{"INT", "width", "In pixels."}, {"INT", "height", "In pixels."}},
      .newer_schema = true,
      .run = run_resolution,
  });
  add_numbers(catalog);
}

}  // namespace distorch::nodes
