#include <set>

#include "distorch/device/sim/sim.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/step_modulations.h"
#include "distorch/nodes/values.h"
#include "tests/nodes/simulated.h"
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

/// The ids of a workflow's nodes of a type.
std::string id_of(const Json& workflow, const std::string& type) {
  for (const auto& [id, node] : workflow.items())
    if (node["class_type"] == type) return id;
  FAIL("no node " << type);
  return {};
}

using Counts = std::vector<std::size_t>;

/// Timesteps that a model's modulations are known at, of each conditioning, the last used first.
Counts known_timesteps(const nodes::Model& model) {
  Counts counts;
  if (model.loaded->modulations)
    for (const auto& told : model.loaded->modulations->all)
      counts.push_back(told->by_timestep.size());
  return counts;
}

/// Where those of the conditioning that was used last lie.
std::set<const void*> addresses(const nodes::Model& model) {
  std::set<const void*> all;
  for (const auto& [timestep, numbers] : model.loaded->modulations->all.front()->by_timestep)
    all.insert(numbers.const_data_ptr());
  return all;
}

Json with(Json one, const std::string& node, const std::string& input, const Json& value) {
  one["workflow"][node]["inputs"][input] = value;
  return one;
}

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

TEST_CASE("FLUX: what modulates is made once for all steps, and kept for the next seed") {
  const auto one = case_named("guidance");
  const auto unet = id_of(one["workflow"], "UNETLoader"),
             sampler = id_of(one["workflow"], "KSampler"),
             guidance = id_of(one["workflow"], "FluxGuidance");
  at::Tensor whole;
  for (const double share : {10.0, 0.8, 0.4}) {
    CAPTURE(share);
    auto options = simulated(small_rig());
    std::int64_t bytes = 0;
    for (const auto& [name, tensor] : tiny_tensors({"flux_dev"}))
      bytes += static_cast<std::int64_t>(tensor.nbytes());
    options.budgets = {{"sim:0", static_cast<std::int64_t>(share * static_cast<double>(bytes))}};
    FluxApp tiny(options);
    const auto latent = tiny.latent(one);
    if (!whole.defined()) whole = latent;
    CHECK(at::equal(latent, whole));
    const auto model = tiny.value_of(one["workflow"], {unet, 0}).as<nodes::Model>();
    const auto& homes = model.loaded->weights->homes();
    const auto aside = std::count_if(homes.begin(), homes.end(), [](const auto& home) {
      return home.how == placement::How::Aside;
    });
    CHECK((aside > 0) == (share < 1));
    CHECK(known_timesteps(model) == Counts{4});
    // Another seed takes what is there.
    const auto before = addresses(model);
    CHECK_FALSE(at::equal(tiny.latent(with(one, sampler, "seed", 6)), whole));
    CHECK(known_timesteps(model) == Counts{4});
    CHECK(addresses(model) == before);
    // More steps have some of the levels.
    tiny.latent(with(one, sampler, "steps", 8));
    CHECK(known_timesteps(model) == Counts{8});
    // Levels between those of the run, one by one.
    tiny.latent(with(one, sampler, "sampler_name", "dpm_2"));
    CHECK(known_timesteps(model).front() > 8);
    // Another conditioning.
    tiny.latent(with(one, guidance, "guidance", 3.5));
    CHECK(known_timesteps(model).size() == 2);
    CHECK(known_timesteps(model).front() == 4);
    tiny.forget_results();
    CHECK(at::equal(tiny.latent(one), whole));
  }
}

TEST_CASE("FLUX: what modulates follows LoRAs and their strengths") {
  const auto one = case_named("control_lora");
  const auto unet = id_of(one["workflow"], "UNETLoader"),
             lora = id_of(one["workflow"], "LoraLoaderModelOnly");
  FluxApp tiny(simulated(small_rig()));
  const auto strong = tiny.latent(one);
  const auto model = tiny.value_of(one["workflow"], {unet, 0}).as<nodes::Model>();
  const auto weaker = tiny.latent(with(one, lora, "strength_model", 0.4));
  CHECK(known_timesteps(model).size() == 2);
  CHECK_FALSE(at::equal(strong, weaker));
  CHECK(difference(strong, Dump("nodes_flux")["control_lora"]) < 1e-4);
  FluxApp fresh(simulated(small_rig()));
  CHECK(at::equal(fresh.latent(with(one, lora, "strength_model", 0.4)), weaker));
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
