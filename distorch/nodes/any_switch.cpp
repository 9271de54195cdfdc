// A helper node of rgthree-comfy. Source: rgthree/rgthree-comfy, py/any_switch.py.
#include "distorch/graph/call.h"
#include "distorch/nodes/catalog.h"

namespace distorch::nodes {

using graph::Call;
using graph::Value;

namespace {

/// The first of the linked inputs, in the prompt's order, that gives something; nothing where none
/// does.
void run_any_switch(Call& call) {
  const auto* node = call.node_of_run(call.node_id());
  Value first;
  if (node && node->contains("inputs"))
    for (const auto& [name, linked] : node->at("inputs").items())
      if (first.empty() && call.has(name)) first = call.in(name);
  call.out(0, first);
}

}  // namespace

void add_any_switch_node(graph::Catalog& catalog) {
  catalog.add({
      .name = "Any Switch (rgthree)",
      .category = "rgthree",
      .description =
          "Gives the first of its inputs that is there: those of muted or bypassed nodes "
          "are not.",
      .python_module = "custom_nodes.rgthree-comfy",
      .outputs = {"*"},
      .takes_more_links = true,
      .run = run_any_switch,
  });
}

}  // namespace distorch::nodes
