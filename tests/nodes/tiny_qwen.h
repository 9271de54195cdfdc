#pragma once
#include "tests/nodes/tiny_seeded.h"

/// Workflows of tests/parity/nodes_qwen.json.
namespace distorch::test {

/// The tensors of a dump below a prefix, without it.
inline std::map<std::string, at::Tensor> tensors_below(const std::string& dump,
                                                       const std::string& prefix) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : tiny_tensors({dump}))
    if (name.starts_with(prefix)) tensors[name.substr(prefix.size())] = tensor;
  return tensors;
}

inline sampling::Conditioning conditioning_of(const graph::Call& call) {
  auto name = call.text("name");
  sampling::ConditioningItem item;
  item.cross_attn = tiny_weight(name, {1, call.integer("tokens"), 48});
  const std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{4, 8}, {8, 6}, {5, 3}};
  for (std::int64_t i = 0; i < call.integer("references"); ++i)
    item.reference_latents.push_back(
        tiny_weight(name + " " + std::to_string(i), {1, 16, 1, sizes[i].first, sizes[i].second}));
  if (auto method = call.text("method"); !method.empty())
    item.texts["reference_latents_method"] = method;
  return {item};
}

/// The tiny Qwen-Image with everything around it, and nodes that make seeded inputs
/// (tests/parity/make_nodes_qwen.py).
class QwenApp : public SeededApp {
 public:
  explicit QwenApp(streaming::EngineOptions engine = {}) : SeededApp(std::move(engine), "qwen") {
    write("diffusion_models", "tiny_qwen", tiny_tensors({"qwen_image"}));
    write("vae", "tiny_causal", tiny_tensors({"causal_vae"}));
    for (std::string name : {"qwen_control", "qwen_control_inpaint", "qwen_control_fun"})
      write("controlnet", name, tiny_tensors({name}));
    for (std::string name : {"plain", "masked"})
      write("model_patches", "qwen_patch_" + name, tensors_below("qwen_patch", name + "."));
    add_pictures(16);
    catalog.add({.name = "TinyConditioning",
                 .inputs = {graph::text("name"), graph::integer("tokens"),
                            graph::integer("references"), graph::text("method")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   call.out(0, graph::Value::of("CONDITIONING", conditioning_of(call)));
                 }});
  }
};

inline graph::Json qwen_cases() { return workflow_cases("nodes_qwen"); }

inline graph::Json qwen_case(const std::string& name) { return workflow_case("nodes_qwen", name); }

inline at::Tensor tensor_of(const graph::Value& value, const std::string& kind) {
  return kind == "image" ? value.as<at::Tensor>() : value.as<sampling::Latent>().samples;
}

inline at::Tensor result_of(TinyApp& tiny, const graph::Json& one, const std::string& key) {
  const auto& output = one["outputs"][key];
  return tensor_of(tiny.value_of(one["workflow"], output["node"]), output["kind"]);
}

}  // namespace distorch::test
