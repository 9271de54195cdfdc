#pragma once
#include "tests/nodes/tiny_seeded.h"

namespace distorch::test {

/// Nodes that make what FLUX is given.
class TinyFluxApp : public SeededApp {
 public:
  explicit TinyFluxApp(const std::string& folder, streaming::EngineOptions options = {})
      : SeededApp(std::move(options), folder) {
    catalog.add({.name = "TinyConditioning",
                 .inputs = {graph::text("name"), graph::integer("tokens")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   auto name = call.text("name");
                   sampling::ConditioningItem item;
                   item.cross_attn = tiny_weight(name, {1, call.integer("tokens"), 24});
                   item.pooled_output = tiny_weight(name + " pooled", {1, 20});
                   call.out(0, graph::Value::of("CONDITIONING", sampling::Conditioning{item}));
                 }});
    add_latents();
  }
};

}  // namespace distorch::test
