#include "distorch/device/sim/sim.h"
#include "distorch/nodes/clip_vision.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;
using graph::Value;

/// FLUX through the nodes: tests/parity/nodes_flux.json.
namespace {

sampling::Conditioning conditioning_of(const graph::Call& call) {
  auto name = call.text("name");
  sampling::ConditioningItem item;
  item.cross_attn = tiny_weight(name, {1, call.integer("tokens"), 24});
  item.pooled_output = tiny_weight(name + " pooled", {1, 20});
  return {item};
}

sampling::Conditioning with_concat(const graph::Call& call) {
  auto conditioning = call.get<sampling::Conditioning>("conditioning");
  auto name = call.text("name");
  auto height = call.integer("height"), width = call.integer("width");
  for (auto& item : conditioning) {
    item.tensors["concat_latent_image"] = tiny_weight(name, {1, 16, height, width});
    if (call.boolean("mask"))
      item.tensors["concat_mask"] =
          tiny_weight(name + " mask", {1, 1, height * 8, width * 8}).gt(0).to(at::kFloat);
  }
  return conditioning;
}

/// The tiny models as files, and nodes that make seeded inputs (tests/parity/make_nodes_flux.py).
class FluxApp : public SeededApp {
 public:
  explicit FluxApp(streaming::EngineOptions engine = {}) : SeededApp(std::move(engine), "flux") {
    for (std::string name : {"flux_dev", "flux_schnell", "flux_fill", "flux2_klein"})
      write("diffusion_models", "tiny_" + name, tiny_tensors({name}));
    std::map<std::string, at::Tensor> redux;
    for (const auto& [name, shape] :
         std::map<std::string, std::vector<std::int64_t>>{{"redux_up.weight", {72, 16}},
                                                          {"redux_up.bias", {72}},
                                                          {"redux_down.weight", {24, 72}},
                                                          {"redux_down.bias", {24}}})
      redux[name] = tiny_weight(name, shape);
    write("style_models", "tiny_redux", redux);
    catalog.add({.name = "TinyVision",
                 .inputs = {graph::text("name")},
                 .outputs = {"CLIP_VISION_OUTPUT"},
                 .run = [](graph::Call& call) {
                   nodes::VisionOutput output;
                   output.last = tiny_weight(call.text("name"), {1, 4, 16});
                   call.out(0, Value::of("CLIP_VISION_OUTPUT", std::move(output)));
                 }});
    catalog.add({.name = "TinyConditioning",
                 .inputs = {graph::text("name"), graph::integer("tokens")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   call.out(0, Value::of("CONDITIONING", conditioning_of(call)));
                 }});
    catalog.add(
        {.name = "TinyConcat",
         .inputs = {graph::link("conditioning", "CONDITIONING"), graph::text("name"),
                    graph::integer("height"), graph::integer("width"), graph::boolean("mask")},
         .outputs = {"CONDITIONING"},
         .run = [](graph::Call& call) {
           call.out(0, Value::of("CONDITIONING", with_concat(call)));
         }});
    add_latents();
  }
};

Json cases() { return workflow_cases("nodes_flux"); }

Json case_named(const std::string& name) { return workflow_case("nodes_flux", name); }

}  // namespace

TEST_CASE("FLUX: whole workflows give ComfyUI's latents") {
  FluxApp tiny;
  Dump dump("nodes_flux");
  for (const auto& one : cases()) {
    auto title = one["name"].get<std::string>();
    INFO(title);
    CHECK(difference(tiny.latent(one), dump[title]) < 1e-4);
  }
}

TEST_CASE("FLUX: split over devices, the same bits") {
  sim::install(small_rig(), sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = small_rig();
  Dump dump("nodes_flux");
  for (const char* title :
       {"references", "control_lora", "klein_reference", "style_bias", "klein_kept"}) {
    auto one = case_named(title);
    auto workflow = one["workflow"];
    at::Tensor whole;
    for (const char* allocation : {"sim:0,100%", "cpu,*", "sim:0,200kb;sim:1,200kb;cpu,*"}) {
      INFO(title << " " << allocation);
      FluxApp tiny(options);
      one["workflow"] = with_split_model(workflow, allocation);
      auto latent = tiny.latent(one);
      if (!whole.defined()) whole = latent;
      CHECK(at::equal(latent, whole));
    }
    CHECK(difference(whole, dump[title]) < 1e-4);
  }
}

TEST_CASE("FLUX: conditionings of another model are told, with what would fit") {
  FluxApp tiny;
  auto one = case_named("guidance");
  auto& workflow = one["workflow"];
  workflow["90"] = {{"class_type", "CheckpointLoaderSimple"},
                    {"inputs", {{"ckpt_name", "tiny_sd1.safetensors"}}}};
  workflow["91"] = {{"class_type", "CLIPTextEncode"},
                    {"inputs", {{"text", "a cat"}, {"clip", {"90", 1}}}}};
  for (auto& [id, node] : workflow.items())
    if (node["class_type"] == "KSampler") node["inputs"]["positive"] = {"91", 0};
  workflow["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", one["latent"]}}}};
  auto error = tiny.run(workflow).error;
  CAPTURE(error);
  CHECK(error.find("takes a text conditioning ('context') of [batch, tokens, 24]") !=
        std::string::npos);
}

TEST_CASE("FLUX: Kontext's sizes and empty latents of FLUX.2") {
  FluxApp tiny;
  Json workflow = {
      {"1",
       {{"class_type", "EmptyImage"},
        {"inputs", {{"width", 300}, {"height", 200}, {"batch_size", 1}, {"color", 255}}}}},
      {"2", {{"class_type", "FluxKontextImageScale"}, {"inputs", {{"image", {"1", 0}}}}}},
      {"3",
       {{"class_type", "EmptyFlux2LatentImage"},
        {"inputs", {{"width", 64}, {"height", 96}, {"batch_size", 2}}}}}};
  auto image = tiny.value_of(workflow, Json{"2", 0}).as<at::Tensor>();
  CHECK((image.sizes() == std::vector<std::int64_t>{1, 832, 1248, 3}));
  auto latent = tiny.value_of(workflow, Json{"3", 0}).as<sampling::Latent>().samples;
  CHECK((latent.sizes() == std::vector<std::int64_t>{2, 128, 6, 4}));
}
