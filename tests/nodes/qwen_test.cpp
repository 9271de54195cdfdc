#include <fstream>

#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::integer;
using graph::Json;

namespace {

/// The tensors of a dump below a prefix, without it.
std::map<std::string, at::Tensor> tensors_below(const std::string& dump,
                                                const std::string& prefix) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : tiny_tensors({dump}))
    if (name.starts_with(prefix)) tensors[name.substr(prefix.size())] = tensor;
  return tensors;
}

sampling::Conditioning conditioning_of(const graph::Call& call) {
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

at::Tensor latent_of(const graph::Call& call) {
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
                 .inputs = {graph::text("name"), integer("tokens"), integer("references"),
                            graph::text("method")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   call.out(0, Value::of("CONDITIONING", conditioning_of(call)));
                 }});
    catalog.add({.name = "TinyImage",
                 .inputs = {graph::text("name"), integer("height"), integer("width")},
                 .outputs = {"IMAGE"},
                 .run = [](graph::Call& call) {
                   auto seeded = at::detail::createCPUGenerator(call.text("name").size());
                   call.out(0, Value::of("IMAGE", at::rand({1, call.integer("height"),
                                                            call.integer("width"), 3},
                                                           seeded)));
                 }});
    catalog.add({.name = "TinyMask",
                 .inputs = {integer("height"), integer("width")},
                 .outputs = {"MASK"},
                 .run = [](graph::Call& call) {
                   auto height = call.integer("height"), width = call.integer("width");
                   auto row = (at::arange(width) > width / 3).to(at::kFloat);
                   call.out(0, Value::of("MASK", row.expand({1, height, width}).contiguous()));
                 }});
    catalog.add(
        {.name = "TinyLatent",
         .inputs = {graph::text("name"), integer("batch"), integer("height"), integer("width")},
         .outputs = {"LATENT"},
         .run = [](graph::Call& call) {
           call.out(0, Value::of("LATENT", sampling::Latent{latent_of(call), {}, {}}));
         }});
  }
};

Json cases() { return Json::parse(std::ifstream(parity_folder() / "nodes_qwen.json"))["cases"]; }

Json case_called(const std::string& name) {
  for (const auto& one : cases())
    if (one["name"] == name) return one;
  FAIL("no case " << name);
  return {};
}

at::Tensor tensor_of(const graph::Value& value, const std::string& kind) {
  return kind == "image" ? value.as<at::Tensor>() : value.as<sampling::Latent>().samples;
}

at::Tensor result_of(TinyApp& tiny, const Json& one, const std::string& key) {
  const auto& output = one["outputs"][key];
  return tensor_of(tiny.value_of(one["workflow"], output["node"]), output["kind"]);
}

}  // namespace

TEST_CASE("Qwen-Image: whole workflows give ComfyUI's latents") {
  QwenApp tiny;
  Dump dump("nodes_qwen");
  double worst = 0;
  for (const auto& one : cases()) {
    auto title = one["name"].get<std::string>();
    for (const auto& [key, output] : one["outputs"].items()) {
      INFO(title << " " << key);
      auto error = difference(result_of(tiny, one, key), dump[title + "/" + key]);
      CHECK(error < 1e-4);
      worst = std::max(worst, error);
    }
  }
  MESSAGE("Qwen-Image: " << cases().size() << " workflows, largest difference " << worst);
}

TEST_CASE("Qwen-Image: a ControlNet without VAE, and a patch on another model, name their files") {
  QwenApp tiny;
  auto prompt = case_called("control")["workflow"];
  for (auto& [id, node] : prompt.items())
    if (node["class_type"] == "ControlNetApplyAdvanced") node["inputs"].erase("vae");
  auto run = [&](Json prompt, const Json& link) {
    prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", link}}}};
    return tiny.run(prompt).error;
  };
  auto error = run(prompt, case_called("control")["outputs"]["latent"]["node"]);
  CHECK(error.find("qwen_control.safetensors") != std::string::npos);
  CHECK(error.find("connect the model's VAE") != std::string::npos);
  prompt = case_called("patch")["workflow"];
  prompt["90"] = {{"class_type", "CheckpointLoaderSimple"},
                  {"inputs", {{"ckpt_name", "tiny_sd1.safetensors"}}}};
  for (auto& [id, node] : prompt.items())
    if (node["class_type"] == "QwenImageDiffsynthControlnet") node["inputs"]["model"] = {"90", 0};
  error = run(prompt, case_called("patch")["outputs"]["latent"]["node"]);
  CHECK(error.find("qwen_patch_plain.safetensors") != std::string::npos);
  CHECK(error.find("tiny_sd1.safetensors") != std::string::npos);
}
