// HunyuanVideo's nodes on the tiny models: workflows of tests/parity/make_nodes_hunyuan.py, and what
// is not possible; the helper node that its workflows choose loaders by.
#include "distorch/device/sim/sim.h"
#include "distorch/nodes/clip_vision.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

class HunyuanApp : public SeededApp {
 public:
  explicit HunyuanApp(streaming::EngineOptions engine = {})
      : SeededApp(std::move(engine), "hunyuan") {
    for (std::string name : {"hunyuan_video", "hunyuan_video_i2v", "skyreels_i2v"})
      write("diffusion_models", name, tiny_tensors({name}));
    for (std::string name : {"hunyuan_vae", "wan_vae22"}) write("vae", name, tiny_tensors({name}));
    std::map<std::string, at::Tensor> clip;
    const std::string prefix = "cond_stage_model.transformer.";
    for (const auto& [name, tensor] : tiny_tensors({"clip_l"}))
      clip[name.substr(prefix.size())] = tensor;
    write("text_encoders", "clip_l", clip);
    add_inputs();
  }

 private:
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
    catalog.add({.name = "TinyConditioning",
                 .inputs = {graph::text("name"), graph::integer("tokens")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   sampling::ConditioningItem item;
                   auto name = call.text("name");
                   item.cross_attn = tiny_weight(name, {1, call.integer("tokens"), 24});
                   item.pooled_output = tiny_weight(name + " pooled", {1, 20});
                   call.out(0, Value::of("CONDITIONING", sampling::Conditioning{item}));
                 }});
    catalog.add(
        {.name = "BlindVision", .outputs = {"CLIP_VISION_OUTPUT"}, .run = [](graph::Call& call) {
           call.out(0, Value::of("CLIP_VISION_OUTPUT", nodes::VisionOutput{}));
         }});
  }
};

Json& node_of(Json& workflow, const std::string& type) {
  for (auto& [id, node] : workflow.items())
    if (node["class_type"] == type) return node["inputs"];
  FAIL("no node " << type);
  return workflow;
}

}  // namespace

TEST_CASE("any device: HunyuanVideo's nodes give ComfyUI's latents") {
  streaming::EngineOptions options;
  options.default_device = test_device_or("cpu");
  HunyuanApp tiny(options);
  check_latents(tiny, "nodes_hunyuan");
}

TEST_CASE("HunyuanVideo: split over devices, the same bits") {
  check_split<HunyuanApp>("nodes_hunyuan", {"text", "replace", "hunyuan_video_i2v"});
}

TEST_CASE("HunyuanVideo nodes: blank latents of pictures and of refined videos") {
  HunyuanApp tiny;
  Json prompt = {
      {"1", node("EmptyHunyuanImageLatent", {{"width", 96}, {"height", 64}, {"batch_size", 2}})},
      {"2", node("EmptyHunyuanLatentVideo",
                 {{"width", 48}, {"height", 32}, {"length", 9}, {"batch_size", 1}})},
      {"3", node("TinyConditioning", {{"name", "cat"}, {"tokens", 3}})},
      {"4", node("HunyuanRefinerLatent", {{"positive", {"3", 0}},
                                          {"negative", {"3", 0}},
                                          {"latent", {"2", 0}},
                                          {"noise_augmentation", 0.2}})}};
  auto samples = [&](const char* id, int slot) {
    return tiny.value_of(prompt, {id, slot}).as<sampling::Latent>().samples;
  };
  CHECK(samples("1", 0).sizes() == at::IntArrayRef({2, 64, 2, 3}));
  CHECK(samples("4", 2).sizes() == at::IntArrayRef({1, 32, 3, 4, 6}));
  auto item = tiny.value_of(prompt, {"4", 1}).as<sampling::Conditioning>().at(0);
  CHECK(item.numbers.at("noise_augmentation") == doctest::Approx(0.2));
  CHECK(item.tensors.at("concat_latent_image").sizes() == at::IntArrayRef({1, 16, 3, 4, 6}));
  prompt["4"]["inputs"]["latent"] = {"1", 0};
  CHECK(tiny.error(prompt, {"4", 2}).find("latents with frames") != std::string::npos);
}

TEST_CASE("HunyuanVideo nodes: what does not fit is refused in one sentence") {
  HunyuanApp tiny;
  auto one = workflow_case("nodes_hunyuan", "replace");
  node_of(one["workflow"], "VAELoader")["vae_name"] = "wan_vae22.safetensors";
  auto error = tiny.error(one["workflow"], one["latent"]);
  CHECK(error.find("gives video latents of 48 channels") != std::string::npos);
  CHECK(error.find("load the VAE of HunyuanVideo") != std::string::npos);
  Json prompt = {
      {"1",
       node("CLIPLoader", {{"clip_name", "clip_l.safetensors"}, {"type", "stable_diffusion"}})},
      {"2", node("BlindVision")},
      {"3", node("TextEncodeHunyuanVideo_ImageToVideo", {{"clip", {"1", 0}},
                                                         {"clip_vision_output", {"2", 0}},
                                                         {"prompt", "it moves"},
                                                         {"image_interleave", 2}})},
      {"4", node("CLIPTextEncodeHunyuanDiT",
                 {{"clip", {"1", 0}}, {"bert", "a cat"}, {"mt5xl", "a cat"}})}};
  CHECK(tiny.error(prompt, {"3", 0}).find("vision part of LLaVA") != std::string::npos);
  CHECK(tiny.error(prompt, {"4", 0}).find("Hunyuan-DiT") != std::string::npos);
}

TEST_CASE("Any Switch: the first input that is there, in the prompt's order") {
  TinyApp tiny;
  Json prompt = {{"1", node("PrimitiveInt", {{"value", 5}})},
                 {"2", node("PrimitiveInt", {{"value", 6}})},
                 {"3", node("Any Switch (rgthree)", {{"any_02", {"2", 0}}, {"any_01", {"1", 0}}})},
                 {"4", node("Any Switch (rgthree)")},
                 {"5", node("Any Switch (rgthree)", {{"any_01", {"4", 0}}, {"any_07", {"1", 0}}})}};
  CHECK(tiny.value_of(prompt, {"3", 0}).as<Json>() == 6);
  CHECK(tiny.value_of(prompt, {"5", 0}).as<Json>() == 5);
}
