#include "distorch/models/flux/image_prompt.h"
#include "tests/nodes/tiny_flux.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

/// XLabs' nodes for FLUX.1: tests/parity/nodes_xlabs.json.
namespace {

at::Tensor picture(const std::string& name, std::vector<std::int64_t> shape) {
  auto values = tiny_weight(name, {c10::multiply_integers(shape)}).view(shape);
  return ((values * 4 + 0.5).clamp(0, 1) * 255).round() / 255;
}

/// The tiny files, and pictures of 8 bits (tests/parity/make_nodes_xlabs.py).
class XlabsApp : public TinyFluxApp {
 public:
  explicit XlabsApp(streaming::EngineOptions engine = {})
      : TinyFluxApp("xlabs", std::move(engine)) {
    write("diffusion_models", "tiny_flux_dev", tiny_tensors({"flux_dev"}));
    write("diffusion_models", "tiny_flux2", tiny_tensors({"flux2_klein"}));
    write("xlabs_controlnets", "xlabs_control", tiny_tensors({"xlabs_control"}));
    write("controlnet", "xlabs_control", tiny_tensors({"xlabs_control"}));
    write("xlabs_loras", "xlabs_lora", tiny_tensors({"xlabs_lora"}));
    write("xlabs_ipadapters", "xlabs_adapter", tiny_tensors({"xlabs_adapter"}));
    write("clip_vision", "xlabs_vision", tiny_tensors({"xlabs_vision"}));
    catalog.add({.name = "TinyPicture",
                 .inputs = {graph::text("name"), graph::integer("batch"), graph::integer("height"),
                            graph::integer("width")},
                 .outputs = {"IMAGE"},
                 .run = [](graph::Call& call) {
                   call.out(0, graph::Value::of(
                                   "IMAGE", picture(call.text("name"),
                                                    {call.integer("batch"), call.integer("height"),
                                                     call.integer("width"), 3})));
                 }});
  }

  using SeededApp::write;
};

/// A case with inputs of its node of that type changed.
Json with(Json one, const std::string& type, const Json& inputs) {
  for (auto& [id, node] : one["workflow"].items())
    if (node["class_type"] == type) node["inputs"].update(inputs);
  return one;
}

/// The id of its node of that type.
std::string id_of(const Json& one, const std::string& type) {
  for (const auto& [id, node] : one["workflow"].items())
    if (node["class_type"] == type) return id;
  FAIL("no " << type);
  return {};
}

std::string error_of(XlabsApp& tiny, const Json& one) {
  return tiny.error(one["workflow"], one["latent"]);
}

bool says(const std::string& error, const std::string& part) {
  CAPTURE(error);
  return error.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("XLabs: whole workflows give the latents of the pack's own code") {
  XlabsApp tiny;
  check_latents(tiny, "nodes_xlabs");
}

TEST_CASE("XLabs: split over devices, the same bits") {
  check_split<XlabsApp>("nodes_xlabs", {"controls", "adapter_two", "lora", "plain_control"});
}

TEST_CASE("XLabs: a ControlNet on a device of its own gives the same") {
  const auto rig = small_rig();
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  auto one = with_split_model(workflow_case("nodes_xlabs", "control")["workflow"], "cpu,*");
  auto& loader = one[id_of({{"workflow", one}}, "LoadFluxControlNet")];
  loader["class_type"] = "LoadFluxControlNetMultiGPU";
  for (const char* device : {"cpu", "sim:0", "sim:1"}) {
    loader["inputs"]["device"] = device;
    XlabsApp tiny(options);
    auto latent = tiny.latent(
        {{"workflow", one}, {"latent", workflow_case("nodes_xlabs", "control")["latent"]}});
    CHECK(difference(latent, Dump("nodes_xlabs")["control"]) < 1e-4);
  }
}

TEST_CASE("XLabs: adapters one after the other add up, and a LoRA behind them leaves them") {
  XlabsApp tiny;
  const auto once =
      with(workflow_case("nodes_xlabs", "adapter"), "ApplyFluxIPAdapter", {{"ip_scale", 0.7}});
  auto twice = once;
  auto& nodes = twice["workflow"];
  const auto applied = id_of(once, "ApplyFluxIPAdapter"), sampler = id_of(once, "XlabsSampler");
  nodes["second"] = nodes[applied];
  nodes[applied]["inputs"]["ip_scale"] = 0.3;
  nodes["second"]["inputs"]["ip_scale"] = 0.4;
  nodes["second"]["inputs"]["model"] = {applied, 0};
  nodes[sampler]["inputs"]["model"] = {"second", 0};
  const auto together = tiny.latent(once);
  CHECK(difference(tiny.latent(twice), together) < 1e-4);

  auto lora = once, before = once;
  lora["workflow"]["lora"] =
      node("FluxLoraLoader", {{"lora_name", "xlabs_lora.safetensors"}, {"strength_model", 0.5}});
  before["workflow"]["lora"] = lora["workflow"]["lora"];
  lora["workflow"]["lora"]["inputs"]["model"] = {applied, 0};
  lora["workflow"][sampler]["inputs"]["model"] = {"lora", 0};
  before["workflow"]["lora"]["inputs"]["model"] = once["workflow"][applied]["inputs"]["model"];
  before["workflow"][applied]["inputs"]["model"] = {"lora", 0};
  const auto with_lora = tiny.latent(lora);
  CHECK(at::equal(with_lora, tiny.latent(before)));
  CHECK(difference(with_lora, together) > 1e-2);
}

TEST_CASE("XLabs: other samplers see the pictures too") {
  XlabsApp tiny;
  auto one = workflow_case("nodes_xlabs", "adapter");
  const auto sampler = id_of(one, "XlabsSampler");
  const auto inputs = one["workflow"][sampler]["inputs"];
  auto latent = [&](const Json& model) {
    one["workflow"][sampler] = node("KSampler", {{"model", model},
                                                 {"positive", inputs["conditioning"]},
                                                 {"negative", inputs["neg_conditioning"]},
                                                 {"latent_image", inputs["latent_image"]},
                                                 {"seed", 5},
                                                 {"steps", 2},
                                                 {"cfg", 2.0},
                                                 {"sampler_name", "euler"},
                                                 {"scheduler", "simple"},
                                                 {"denoise", 1.0}});
    return tiny.latent(one);
  };
  const auto without = latent(one["workflow"][id_of(one, "ApplyFluxIPAdapter")]["inputs"]["model"]);
  CHECK(difference(latent(inputs["model"]), without) > 1e-2);
}

TEST_CASE("XLabs: nothing to denoise gives the start") {
  XlabsApp tiny;
  auto none = with(workflow_case("nodes_xlabs", "picture_back"), "XlabsSampler",
                   {{"denoise_strength", 0.0}});
  CHECK(difference(tiny.latent(none), Dump("nodes_xlabs")["picture_back"]) < 1e-5);
}

TEST_CASE("XLabs: what does not go together is told") {
  XlabsApp tiny;
  const auto plain = workflow_case("nodes_xlabs", "plain"),
             control = workflow_case("nodes_xlabs", "control"),
             lora = workflow_case("nodes_xlabs", "lora"),
             adapter = workflow_case("nodes_xlabs", "adapter");
  auto without = plain;
  without["workflow"][id_of(plain, "XlabsSampler")]["inputs"].erase("latent_image");
  CHECK(says(error_of(tiny, without), "needs a 'latent_image'"));
  CHECK(says(error_of(tiny, with(plain, "UNETLoader", {{"unet_name", "tiny_flux2.safetensors"}})),
             "is FLUX.2, and this sampler is for FLUX.1"));
  CHECK(says(error_of(tiny, with(plain, "TinyLatent", {{"height", 1}})), "at least 2 x 2 cells"));

  tiny.write("xlabs_controlnets", "other", tiny_tensors({"control_sd1"}));
  CHECK(says(error_of(tiny, with(control, "LoadFluxControlNet",
                                 {{"controlnet_path", "other.safetensors"}})),
             "holds no ControlNet of XLabs for FLUX.1"));
  auto broken = tiny_tensors({"xlabs_control"});
  broken.erase("pos_embed_input.bias");
  tiny.write("xlabs_controlnets", "broken", broken);
  CHECK(says(error_of(tiny, with(control, "LoadFluxControlNet",
                                 {{"controlnet_path", "broken.safetensors"}})),
             "pos_embed_input.bias"));

  tiny.write("xlabs_loras", "other",
             {{"single_blocks.0.processor.qkv_lora.up.weight", at::ones({4, 4})}});
  CHECK(says(error_of(tiny, with(lora, "FluxLoraLoader", {{"lora_name", "other.safetensors"}})),
             "holds no LoRA for the attention of FLUX's double blocks"));

  auto load = [&](const Json& inputs) {
    return error_of(tiny, with(adapter, "LoadFluxIPAdapter", inputs));
  };
  tiny.write("xlabs_ipadapters", "other", tiny_tensors({"xlabs_lora"}));
  CHECK(says(load({{"ipadatper", "other.safetensors"}}), "holds no IP-Adapter of XLabs for FLUX"));
  auto deeper = tiny_tensors({"xlabs_adapter"});
  for (const auto& [name, tensor] : tiny_tensors({"xlabs_adapter"}))
    if (name.starts_with("double_blocks.1.")) deeper["double_blocks.2." + name.substr(16)] = tensor;
  tiny.write("xlabs_ipadapters", "deeper", deeper);
  CHECK(says(load({{"ipadatper", "deeper.safetensors"}}), "is for 3 double blocks of width 64"));
  tiny.write("clip_vision", "of_xlabs_test", tiny_tensors({"clip_vision"}));
  CHECK(says(load({{"clip_vision", "of_xlabs_test.safetensors"}}),
             "takes pictures as 20 numbers each"));
  tiny.write("clip_vision", "none", tiny_tensors({"xlabs_lora"}));
  CHECK(says(load({{"clip_vision", "none.safetensors"}}), "holds no picture encoder"));
}
