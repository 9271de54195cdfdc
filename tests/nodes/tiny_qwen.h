#pragma once
#include <fstream>

#include "tests/nodes/tiny_app.h"

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

inline at::Tensor latent_of(const graph::Call& call) {
  std::vector<std::int64_t> shape = {call.integer("batch"), 16, call.integer("height"),
                                     call.integer("width")};
  auto name = call.text("name");
  return name.empty() ? at::zeros(shape) : tiny_weight(name, shape);
}

/// The tiny Qwen-Image with everything around it, and nodes that make seeded inputs
/// (tests/parity/make_nodes_qwen.py).
class QwenApp : public TinyApp {
 public:
  explicit QwenApp(streaming::EngineOptions engine = {}) : TinyApp(std::move(engine), "qwen") {
    write("diffusion_models", "tiny_qwen", tiny_tensors({"qwen_image"}));
    write("vae", "tiny_causal", tiny_tensors({"causal_vae"}));
    for (std::string name : {"qwen_control", "qwen_control_inpaint"})
      write("controlnet", name, tiny_tensors({name}));
    for (std::string name : {"plain", "masked"})
      write("model_patches", "qwen_patch_" + name, tensors_below("qwen_patch", name + "."));
    add_nodes();
  }

 private:
  void write(const std::string& type, const std::string& name,
             const std::map<std::string, at::Tensor>& tensors) {
    fs::create_directories(folder() / type);
    write_tensors(folder() / type / (name + ".safetensors"), tensors);
    app.folders.add(type, folder() / type);
  }

  void add_nodes() {
    using graph::Value;
    catalog.add({.name = "TinyConditioning",
                 .inputs = {graph::text("name"), graph::integer("tokens"),
                            graph::integer("references"), graph::text("method")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   call.out(0, Value::of("CONDITIONING", conditioning_of(call)));
                 }});
    catalog.add({.name = "TinyImage",
                 .inputs = {graph::text("name"), graph::integer("height"), graph::integer("width")},
                 .outputs = {"IMAGE"},
                 .run = [](graph::Call& call) {
                   auto seeded = at::detail::createCPUGenerator(call.text("name").size());
                   call.out(0, Value::of("IMAGE", at::rand({1, call.integer("height"),
                                                            call.integer("width"), 3},
                                                           seeded)));
                 }});
    catalog.add({.name = "TinyMask",
                 .inputs = {graph::integer("height"), graph::integer("width")},
                 .outputs = {"MASK"},
                 .run = [](graph::Call& call) {
                   auto height = call.integer("height"), width = call.integer("width");
                   auto row = (at::arange(width) > width / 3).to(at::kFloat);
                   call.out(0, Value::of("MASK", row.expand({1, height, width}).contiguous()));
                 }});
    catalog.add({.name = "TinyLatent",
                 .inputs = {graph::text("name"), graph::integer("batch"), graph::integer("height"),
                            graph::integer("width")},
                 .outputs = {"LATENT"},
                 .run = [](graph::Call& call) {
                   call.out(0, Value::of("LATENT", sampling::Latent{latent_of(call), {}, {}}));
                 }});
  }
};

inline graph::Json qwen_cases() {
  return graph::Json::parse(std::ifstream(parity_folder() / "nodes_qwen.json"))["cases"];
}

inline graph::Json qwen_case(const std::string& name) {
  for (const auto& one : qwen_cases())
    if (one["name"] == name) return one;
  FAIL("no case " << name);
  return {};
}

inline at::Tensor tensor_of(const graph::Value& value, const std::string& kind) {
  return kind == "image" ? value.as<at::Tensor>() : value.as<sampling::Latent>().samples;
}

inline at::Tensor result_of(TinyApp& tiny, const graph::Json& one, const std::string& key) {
  const auto& output = one["outputs"][key];
  return tensor_of(tiny.value_of(one["workflow"], output["node"]), output["kind"]);
}

}  // namespace distorch::test
