#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "distorch/graph/json_text.h"
#include "distorch/nodes/catalog.h"
#include "distorch/sampling/ksampler.h"

namespace distorch::nodes {

using graph::Call;
using graph::Json;
using graph::link;

namespace {

std::string shown(const at::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.sizes(), ", "));
}

/// A plain value as Python writes it; of anything else its type, and its shape where it has one.
std::string description(const graph::Value& value) {
  if (value.is<Json>()) {
    const auto& json = value.as<Json>();
    return json.is_structured() ? graph::json_line(json) : graph::python_str(json);
  }
  if (value.is<at::Tensor>()) return value.type() + " " + shown(value.as<at::Tensor>());
  if (value.is<sampling::Latent>())
    return value.type() + " " + shown(value.as<sampling::Latent>().samples);
  return value.type();
}

void run_any(Call& call) {
  auto text = call.has("source") ? description(call.in("source")) : "None";
  call.out(0, graph::Value::constant(text));
  call.ui({{"text", Json::array({text})}});
}

}  // namespace

void add_preview_nodes(graph::Catalog& catalog) {
  catalog.add({
      .name = "PreviewAny",
      .display_name = "Preview Any",
      .category = "utils",
      .python_module = "comfy_extras.nodes_preview_any",
      .inputs = {link("source", "*", {.extra = Json::object()})},
      .outputs = {"STRING"},
      .output_node = true,
      .run = run_any,
  });
}

}  // namespace distorch::nodes
