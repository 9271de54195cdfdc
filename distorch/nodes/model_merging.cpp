#include "distorch/base/error.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/model_cache.h"

namespace distorch::nodes {

using graph::Call;
using graph::link;
using graph::number;
using graph::Value;

namespace {

/// model1 · first + model2 · second. LoRAs are not merged into the weights but go along at run time:
/// each adds to its own model's weights, so its strength is scaled as they are.
void out_mixed(Call& call, const Mix& mix) {
  auto model = call.get<Model>("model1");
  const auto& other = call.get<Model>("model2");
  model.loaded = call.context<ModelCache>().mixed(model.loaded, other.loaded, mix);
  for (auto& lora : model.loras) lora.strength *= mix.first;
  for (auto lora : other.loras) {
    lora.strength *= mix.second;
    model.loras.push_back(std::move(lora));
  }
  call.out(0, Value::of("MODEL", std::move(model)));
}

void run_simple(Call& call) {
  auto ratio = call.number("ratio");
  if (ratio == 1) return call.out(0, call.in("model1"));
  out_mixed(call, {ratio, 1.0 - ratio});
}

void run_add(Call& call) { out_mixed(call, {1.0, 1.0}); }

void run_subtract(Call& call) {
  auto factor = call.number("multiplier");
  out_mixed(call, {factor, -factor});
}

graph::NodeType merge(const char* name, const std::vector<graph::Input>& numbers,
                      void (*run)(Call&)) {
  std::vector<graph::Input> inputs = {link("model1", "MODEL"), link("model2", "MODEL")};
  inputs.insert(inputs.end(), numbers.begin(), numbers.end());
  return {.name = name,
          .display_name = name,
          .category = "advanced/model_merging",
          .python_module = "comfy_extras.nodes_model_merging",
          .inputs = std::move(inputs),
          .outputs = {"MODEL"},
          .run = run};
}

}  // namespace

void add_model_merging_nodes(graph::Catalog& catalog) {
  catalog.add(merge("ModelMergeSimple",
                    {number("ratio", {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01})},
                    run_simple));
  catalog.add(merge("ModelMergeAdd", {}, run_add));
  catalog.add(merge("ModelMergeSubtract",
                    {number("multiplier", {.def = 1.0, .min = -10.0, .max = 10.0, .step = 0.01})},
                    run_subtract));
}

}  // namespace distorch::nodes
