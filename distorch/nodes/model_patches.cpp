#include "distorch/nodes/catalog.h"
#include "distorch/nodes/values.h"

namespace distorch::nodes {

using graph::Call;
using graph::link;
using graph::number;
using graph::Value;

namespace {

template <int kVersion>
void run_free_u(Call& call) {
  auto model = call.get<Model>("model");
  model.patches.free_u.push_back({.version = kVersion,
                                  .b1 = call.number("b1"),
                                  .b2 = call.number("b2"),
                                  .s1 = call.number("s1"),
                                  .s2 = call.number("s2")});
  call.out(0, Value::of("MODEL", std::move(model)));
}

graph::NodeType free_u(const char* name, double b1, double b2, void (*run)(Call&)) {
  auto factor = [](const char* input, double usual) {
    return number(input, {.def = usual, .min = 0.0, .max = 10.0, .step = 0.01});
  };
  return {.name = name,
          .display_name = name,
          .category = "model_patches/unet",
          .python_module = "comfy_extras.nodes_freelunch",
          .inputs = {link("model", "MODEL"), factor("b1", b1), factor("b2", b2), factor("s1", 0.9),
                     factor("s2", 0.2)},
          .outputs = {"MODEL"},
          .run = run};
}

}  // namespace

void add_model_patch_nodes(graph::Catalog& catalog) {
  catalog.add(free_u("FreeU", 1.1, 1.2, run_free_u<1>));
  catalog.add(free_u("FreeU_V2", 1.3, 1.4, run_free_u<2>));
}

}  // namespace distorch::nodes
