#include "distorch/nodes/catalog.h"

namespace distorch::nodes {

using graph::Call;
using graph::Value;

namespace {

void run_value(Call& call) { call.out(0, call.in("value")); }

void add(graph::Catalog& catalog, const char* name, const char* title, graph::Input input) {
  auto type = input.type;
  catalog.add({
      .name = name,
      .display_name = title,
      .category = "utils/primitive",
      .python_module = "comfy_extras.nodes_primitive",
      .inputs = {std::move(input)},
      .outputs = {graph::Output(type)},
      .newer_schema = true,
      .run = run_value,
  });
}

}  // namespace

void add_primitive_nodes(graph::Catalog& catalog) {
  constexpr std::int64_t largest = 9223372036854775807;
  add(catalog, "PrimitiveString", "String", graph::text("value", {.multiline = false}));
  add(catalog, "PrimitiveStringMultiline", "String (Multiline)",
      graph::text("value", {.multiline = true}));
  add(catalog, "PrimitiveInt", "Int",
      graph::integer(
          "value",
          {.min = -largest, .max = largest, .extra = {{"control_after_generate", "fixed"}}}));
  add(catalog, "PrimitiveFloat", "Float",
      graph::number("value", {.min = -largest, .max = largest, .step = 0.1}));
  add(catalog, "PrimitiveBoolean", "Boolean", graph::boolean("value"));
}

}  // namespace distorch::nodes
