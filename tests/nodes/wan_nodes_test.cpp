// Wan's own nodes on the tiny models: workflows of tests/parity/make_nodes_wan.py, and what is not
// possible.
#include <algorithm>
#include <functional>

#include "distorch/device/sim/sim.h"
#include "distorch/nodes/audio_states.h"
#include "distorch/nodes/clip_vision.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/devices.h"
#include "tests/support/told.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

at::Tensor video_of(const std::string& name, const graph::Call& call) {
  return at::rand({call.integer("frames"), call.integer("height"), call.integer("width"), 3},
                  at::detail::createCPUGenerator(name.size()));
}

class WanApp : public SeededApp {
 public:
  explicit WanApp(streaming::EngineOptions engine = {}) : SeededApp(std::move(engine), "wan") {
    for (std::string name : {"wan_t2v", "wan_i2v", "wan_flf", "wan_fun", "wan_fun22", "wan_vace",
                             "wan_camera", "wan_camera22", "wan_5b", "wan_animate", "wan_s2v"})
      write("diffusion_models", name, tiny_tensors({name}));
    auto low = tiny_tensors({"wan_t2v"});
    for (auto& [name, tensor] : low) tensor = tiny_weight("low " + name, tensor.sizes().vec());
    write("diffusion_models", "wan_t2v_low", low);
    for (std::string name : {"wan_vae", "wan_vae22"}) write("vae", name, tiny_tensors({name}));
    add_inputs();
  }

  void write_lora(const std::string& name, const std::map<std::string, at::Tensor>& tensors) {
    write("loras", name, tensors);
  }

 private:
  void add_inputs() {
    using graph::Value;
    std::vector<graph::Input> size = {graph::integer("frames"), graph::integer("height"),
                                      graph::integer("width")};
    auto named = size;
    named.insert(named.begin(), graph::text("name"));
    catalog.add(
        {.name = "TinyVideo", .inputs = named, .outputs = {"IMAGE"}, .run = [](graph::Call& call) {
           call.out(0, Value::of("IMAGE", video_of(call.text("name"), call)));
         }});
    catalog.add(
        {.name = "TinyMasks", .inputs = size, .outputs = {"MASK"}, .run = [](graph::Call& call) {
           auto mask = video_of("mask", call).select(3, 0) > 0.4;
           call.out(0, Value::of("MASK", mask.to(at::kFloat)));
         }});
    catalog.add({.name = "TinyConditioning",
                 .inputs = {graph::text("name"), graph::integer("tokens")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   sampling::ConditioningItem item;
                   item.cross_attn =
                       tiny_weight(call.text("name"), {1, call.integer("tokens"), 48});
                   call.out(0, Value::of("CONDITIONING", sampling::Conditioning{item}));
                 }});
    catalog.add({.name = "TinyAudio",
                 .inputs = {graph::text("name"), graph::integer("layers"), graph::integer("states"),
                            graph::integer("width")},
                 .outputs = {"AUDIO_ENCODER_OUTPUT"},
                 .run = [](graph::Call& call) {
                   nodes::AudioStates heard;
                   for (std::int64_t i = 0; i < call.integer("layers"); ++i)
                     heard.layers.push_back(
                         tiny_weight(call.text("name") + " " + std::to_string(i),
                                     {1, call.integer("states"), call.integer("width")}));
                   call.out(0, Value::of("AUDIO_ENCODER_OUTPUT", heard));
                 }});
    catalog.add({.name = "TinyVision",
                 .inputs = {graph::text("name"), graph::integer("places")},
                 .outputs = {"CLIP_VISION_OUTPUT"},
                 .run = [](graph::Call& call) {
                   nodes::VisionOutput seen;
                   seen.penultimate =
                       tiny_weight(call.text("name"), {1, call.integer("places"), 1280});
                   call.out(0, Value::of("CLIP_VISION_OUTPUT", seen));
                 }});
  }
};

/// The node of a class, for changing its inputs.
Json& node_of(Json& workflow, const std::string& type) {
  for (auto& [id, node] : workflow.items())
    if (node["class_type"] == type) return node["inputs"];
  FAIL("no node " << type);
  return workflow;
}

}  // namespace

TEST_CASE("any device: Wan's nodes give ComfyUI's latents") {
  streaming::EngineOptions options;
  options.default_device = test_device_or("cpu");
  WanApp tiny(options);
  check_latents(tiny, "nodes_wan");
}

TEST_CASE("Wan: split over devices, each of its kinds, the same bits") {
  check_split<WanApp>("nodes_wan", {"vace", "wan_camera", "first_last", "sound", "experts"});
}

TEST_CASE("Wan: two experts within memory for one of them, planned freely") {
  auto one = workflow_case("nodes_wan", "experts");
  std::int64_t expert = 0;
  for (const auto& [name, tensor] : tiny_tensors({"wan_t2v"})) expert += tensor.numel() * 4;
  auto run = [&](std::int64_t budget) {
    auto rig = small_rig(1);
    sim::install(rig, sim::Mode::Exec);
    streaming::EngineOptions options;
    options.rig = rig;
    if (budget > 0) options.budgets["sim:0"] = budget;
    WanApp tiny(options);
    sim::reset_peak(0);
    return tiny.latent(one);
  };
  auto ample = run(0);
  // One and a half of the experts, with what a step needs beside its weights.
  auto budget = expert * 3 / 2 + 2 * kMiB;
  CHECK(at::equal(run(budget), ample));
  CHECK(sim::memory(0).peak <= budget);
}

TEST_CASE("Wan: the second expert is planned with the first one, before that runs") {
  auto one = workflow_case("nodes_wan", "experts");
  auto rig = small_rig(1);
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  WanApp tiny(options);
  struct Steps : graph::EventSink {
    void send(const graph::Event& event) override {
      if (const auto* step = std::get_if<graph::Progress>(&event); step && !at_first_step.empty()) {
        for (const auto& look : std::exchange(at_first_step, {})) look();
      }
    }
    std::vector<std::function<void()>> at_first_step;
  } steps;
  const auto file = tiny.folder() / "diffusion_models" / "wan_t2v_low.safetensors";
  bool planned = false;
  steps.at_first_step.push_back([&] {
    auto low = tiny.app.models.diffusion(file, {});
    planned = tiny.app.engine.placement_of(*low->weights) != nullptr;
  });
  auto prompt = one["workflow"];
  prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", one["latent"]}}}};
  auto result = tiny.run(prompt, &steps);
  CHECK(result.error.empty());
  CHECK(planned);
  const auto& order = result.run.executed;
  auto place = [&](const char* id) { return std::find(order.begin(), order.end(), id); };
  CHECK(place("7") < place("9"));
  CHECK(place("9") < place("10"));
  const auto& latent = tiny.kept.at("keep").as<sampling::Latent>().samples;
  CHECK(difference(latent, Dump("nodes_wan")["experts"]) < 1e-4);
}

TEST_CASE("Wan nodes: lengths that are not 4n + 1 are told, and cut as ComfyUI cuts them") {
  WanApp tiny;
  auto one = workflow_case("nodes_wan", "image");
  auto whole = tiny.latent(one);
  node_of(one["workflow"], "WanImageToVideo")["length"] = 11;
  Told told;
  CHECK(tiny.latent(one).sizes() == whole.sizes());
  CHECK(told.text().find("a video of 11 frames has 9 in its latent, as lengths are 4n + 1") !=
        std::string::npos);
  auto camera = workflow_case("nodes_wan", "wan_camera");
  node_of(camera["workflow"], "WanCameraEmbedding")["length"] = 11;
  auto error = tiny.error(camera["workflow"], camera["latent"]);
  CHECK(error.find("4n + 1 frames, got a length of 11: 9 would do") != std::string::npos);
}

TEST_CASE("Wan nodes: control frames that do not fit are refused in one sentence") {
  WanApp tiny;
  auto one = workflow_case("nodes_wan", "vace_two");
  node_of(one["workflow"], "WanVaceToVideo")["length"] = 13;
  auto error = tiny.error(one["workflow"], one["latent"]);
  CHECK(error.find("vace_frames: of two nodes on one conditioning have to be alike") !=
        std::string::npos);
  auto camera = workflow_case("nodes_wan", "wan_camera");
  node_of(camera["workflow"], "WanCameraEmbedding")["length"] = 5;
  error = tiny.error(camera["workflow"], camera["latent"]);
  CHECK(error.find("camera_conditions: are of 2 latent frames") != std::string::npos);
}

TEST_CASE("Wan nodes: the VAE of the other model is refused by name") {
  WanApp tiny;
  auto one = workflow_case("nodes_wan", "image");
  node_of(one["workflow"], "VAELoader")["vae_name"] = "wan_vae22.safetensors";
  auto error = tiny.error(one["workflow"], one["latent"]);
  CHECK(error.find("wan_vae22.safetensors: gives latents of 48 channels") != std::string::npos);
  CHECK(error.find("load the VAE of Wan 2.1") != std::string::npos);
  one = workflow_case("nodes_wan", "second");
  node_of(one["workflow"], "VAELoader")["vae_name"] = "wan_vae.safetensors";
  error = tiny.error(one["workflow"], one["latent"]);
  CHECK(error.find("wan_vae.safetensors: gives latents of 16 channels") != std::string::npos);
  // Nodes for both kinds do not know the model; the network says it.
  one = workflow_case("nodes_wan", "inpaint");
  node_of(one["workflow"], "VAELoader")["vae_name"] = "wan_vae22.safetensors";
  auto& workflow = one["workflow"];
  workflow["90"] = {{"class_type", "EmptyHunyuanLatentVideo"},
                    {"inputs", {{"width", 48}, {"height", 32}, {"length", 9}, {"batch_size", 1}}}};
  node_of(workflow, "KSampler")["latent_image"] = {"90", 0};
  error = tiny.error(workflow, one["latent"]);
  CHECK(error.find("concat_latent_image: has 48 channels, and this Wan model works with latents "
                   "of 16") != std::string::npos);
}

TEST_CASE("Wan nodes: a LoRA of a wider model is refused in one sentence") {
  WanApp tiny;
  tiny.write_lora("wide",
                  {{"diffusion_model.blocks.0.self_attn.q.lora_A.weight", at::randn({4, 512})},
                   {"diffusion_model.blocks.0.self_attn.q.lora_B.weight", at::randn({512, 4})}});
  auto one = workflow_case("nodes_wan", "phantom");
  auto& workflow = one["workflow"];
  workflow["91"] = {{"class_type", "LoraLoaderModelOnly"},
                    {"inputs",
                     {{"model", node_of(workflow, "KSampler")["model"]},
                      {"lora_name", "wide.safetensors"},
                      {"strength_model", 1.0}}}};
  node_of(workflow, "KSampler")["model"] = {"91", 0};
  auto error = tiny.error(workflow, one["latent"]);
  CHECK(error.find("wide.safetensors: fits nothing in wan_t2v.safetensors, which is Wan") !=
        std::string::npos);
  CHECK(error.find("512") != std::string::npos);
}
