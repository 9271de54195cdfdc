// libFuzzer target: any bytes as a workflow file. Reading, converting, overriding and validating
// may refuse them with distorch::Error, but must not crash, hang or run out of stack.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "distorch/graph/dynamic_inputs.h"
#include "distorch/graph/overrides.h"
#include "distorch/graph/ui_to_api.h"
#include "distorch/graph/validation.h"

namespace {

using namespace distorch;

void nothing(graph::Call&) {}

graph::Catalog make_catalog() {
  graph::Catalog catalog;
  catalog.add(
      {.name = "Source",
       .inputs = {graph::integer("seed", {.def = 0, .min = 0, .max = 18446744073709551615ull}),
                  graph::number("scale", {.def = 1.0, .min = 0.0, .max = 2.0}),
                  graph::choice("mode", {"a", "b"}),
                  graph::optional(graph::boolean("flag", {.def = true}))},
       .outputs = {"IMAGE"},
       .run = nothing});
  catalog.add(
      {.name = "Mix",
       .inputs = {graph::link("x", "IMAGE"), graph::optional(graph::link("y", "IMAGE,MASK")),
                  graph::text("text", {.multiline = true, .dynamic_prompts = true})},
       .outputs = {"IMAGE"},
       .run = nothing});
  const std::vector<graph::Option> crops = {graph::Option{"none", {}}};
  const std::vector<graph::Option> kinds = {
      graph::Option{"size", {graph::integer("width", {.def = 1})}},
      graph::Option{"match",
                    {graph::link("match", "IMAGE"), graph::dynamic_choice("crop", crops)}}};
  catalog.add({.name = "Resize",
               .inputs = {graph::match_type("input", "t", "IMAGE,MASK"),
                          graph::dynamic_choice("kind", kinds),
                          graph::growing("more", graph::link("more", "IMAGE"), "more", 1, 50)},
               .outputs = {graph::kMatchType},
               .newer_schema = true,
               .run = nothing});
  catalog.add(
      {.name = "Save",
       .inputs = {graph::link("images", "IMAGE"), graph::text("filename_prefix", {.def = "x"})},
       .output_node = true,
       .run = nothing});
  return catalog;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const graph::Catalog catalog = make_catalog();
  static const graph::Definitions definitions(catalog);
  graph::ConvertOptions options;
  options.now = 0;
  // The first byte decides, so that both ways are tried.
  if (size > 0 && data[0] == ' ') options.unknown_types = graph::UnknownTypes::Keep;
  try {
    graph::Prompt prompt = graph::load_prompt(
        std::string_view(reinterpret_cast<const char*>(data), size), definitions, options);
    graph::Validation checked = graph::validate(prompt.nodes, catalog);
    checked.node_errors();
    checked.lines();
    graph::apply_override(prompt.nodes, {"Save", "filename_prefix", "y"}, catalog);
  } catch (const Error&) {
    // A clear refusal.
  }
  return 0;
}
