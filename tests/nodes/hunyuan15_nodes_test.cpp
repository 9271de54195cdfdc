// HunyuanVideo 1.5's nodes on the tiny models: workflows of tests/parity/make_nodes_hunyuan15.py,
// prompts that quote words, and what is not possible.
#include "distorch/device/sim/sim.h"
#include "distorch/nodes/clip_vision.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

class Hunyuan15App : public SeededApp {
 public:
  explicit Hunyuan15App(streaming::EngineOptions engine = {})
      : SeededApp(std::move(engine), "hunyuan15") {
    write("diffusion_models", "hunyuan_video15", tiny_tensors({"hunyuan_video15"}));
    for (std::string name : {"hunyuan_vae15", "hunyuan_vae"})
      write("vae", name, tiny_tensors({name}));
    write_encoder("qwen25_7b");
    write_encoder("byt5_small");
    add_inputs();
  }

 private:
  void write_encoder(const std::string& name) {
    const auto prefix = "text_encoders." + name + ".transformer.";
    std::map<std::string, at::Tensor> tensors;
    for (const auto& [whole, tensor] : tiny_tensors({"text_hunyuan15"}))
      if (whole.starts_with(prefix)) tensors[whole.substr(prefix.size())] = tensor;
    write("text_encoders", name, tensors);
  }

  void add_inputs() {
    using graph::Value;
    catalog.add(
        {.name = "TinyVideo",
         .inputs = {graph::text("name"), graph::integer("frames"), graph::integer("height"),
                    graph::integer("width")},
         .outputs = {"IMAGE"},
         .run = [](graph::Call& call) {
           auto seeded = at::detail::createCPUGenerator(call.text("name").size());
           call.out(0, Value::of("IMAGE", at::rand({call.integer("frames"), call.integer("height"),
                                                    call.integer("width"), 3},
                                                   seeded)));
         }});
    catalog.add(
        {.name = "TinyConditioning",
         .inputs = {graph::text("name"), graph::integer("tokens"), graph::integer("glyphs")},
         .outputs = {"CONDITIONING"},
         .run = [](graph::Call& call) {
           sampling::ConditioningItem item;
           auto name = call.text("name");
           item.cross_attn = tiny_weight(name, {1, call.integer("tokens"), 24});
           if (auto glyphs = call.integer("glyphs"); glyphs > 0)
             item.tensors["conditioning_byt5small"] =
                 tiny_weight(name + " glyphs", {1, glyphs, 20});
           call.out(0, Value::of("CONDITIONING", sampling::Conditioning{item}));
         }});
    catalog.add({.name = "TinyVision",
                 .inputs = {graph::text("name"), graph::integer("tokens")},
                 .outputs = {"CLIP_VISION_OUTPUT"},
                 .run = [](graph::Call& call) {
                   nodes::VisionOutput seen;
                   seen.last = tiny_weight(call.text("name"), {1, call.integer("tokens"), 16});
                   call.out(0, Value::of("CLIP_VISION_OUTPUT", seen));
                 }});
  }
};

}  // namespace

TEST_CASE("any device: HunyuanVideo 1.5's nodes give ComfyUI's latents") {
  streaming::EngineOptions options;
  options.default_device = test_device_or("cpu");
  Hunyuan15App tiny(options);
  check_latents(tiny, "nodes_hunyuan15");
}

TEST_CASE("HunyuanVideo 1.5: split over devices, the same bits") {
  check_split<Hunyuan15App>("nodes_hunyuan15", {"text", "picture"});
}

TEST_CASE(
    "HunyuanVideo 1.5 nodes: quoted words stand beside the text, and only where there are any") {
  Hunyuan15App tiny;
  Json prompt = {{"1", node("DualCLIPLoader", {{"clip_name1", "qwen25_7b.safetensors"},
                                               {"clip_name2", "byt5_small.safetensors"},
                                               {"type", "hunyuan_video_15"}})},
                 {"2", node("CLIPTextEncode", {{"clip", {"1", 0}}, {"text", "it says \"so\""}})},
                 {"3", node("CLIPTextEncode", {{"clip", {"1", 0}}, {"text", "it says so"}})}};
  auto item = [&](const char* id) {
    return tiny.value_of(prompt, {id, 0}).as<sampling::Conditioning>().at(0);
  };
  auto quoting = item("2");
  REQUIRE(quoting.tensors.count("conditioning_byt5small") == 1);
  // `Text "so". ` and the end.
  CHECK(quoting.tensors.at("conditioning_byt5small").sizes() == at::IntArrayRef({1, 12, 32}));
  CHECK(quoting.cross_attn.size(2) == 32);
  CHECK_FALSE(quoting.pooled_output.defined());
  CHECK(item("3").tensors.count("conditioning_byt5small") == 0);
  prompt["1"]["inputs"]["clip_name2"] = "qwen25_7b.safetensors";
  CHECK(tiny.error(prompt, {"2", 0}).find("takes Qwen2.5-VL 7B and ByT5 small") !=
        std::string::npos);
}

TEST_CASE("HunyuanVideo 1.5 nodes: blank latents, and a VAE of another model") {
  Hunyuan15App tiny;
  Json prompt = {{"1", node("EmptyHunyuanVideo15Latent",
                            {{"width", 64}, {"height", 32}, {"length", 9}, {"batch_size", 2}})}};
  CHECK(tiny.value_of(prompt, {"1", 0}).as<sampling::Latent>().samples.sizes() ==
        at::IntArrayRef({2, 32, 3, 2, 4}));
  auto one = workflow_case("nodes_hunyuan15", "picture");
  for (auto& [id, found] : one["workflow"].items())
    if (found["class_type"] == "VAELoader") found["inputs"]["vae_name"] = "hunyuan_vae.safetensors";
  auto error = tiny.error(one["workflow"], one["latent"]);
  CHECK(error.find("gives video latents of 16 channels") != std::string::npos);
  CHECK(error.find("load the VAE of HunyuanVideo 1.5") != std::string::npos);
}
