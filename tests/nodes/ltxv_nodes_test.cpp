// LTX-Video's nodes on the tiny models: workflows of tests/parity/make_nodes_ltxv.py, the loaders and
// tricks of its packs, and what is not possible.
#include "distorch/formats/safetensors.h"
#include "distorch/nodes/values.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// The weights of a dump; deviations of latents are above 0 (make_ltxv_vae.py).
std::map<std::string, at::Tensor> tensors_of(const std::string& name,
                                             const std::string& prefix = "") {
  std::map<std::string, at::Tensor> result;
  for (const auto& [tensor, value] : tiny_tensors({name}))
    result[prefix + tensor] = tensor.ends_with(".std-of-means") ? value.abs().add_(0.5) : value;
  return result;
}

std::string config_of_dump(const std::string& name) {
  return Json::parse(std::ifstream(parity_dir() / (name + ".json")))
      .value("config", std::string("{}"));
}

class LtxvApp : public SeededApp {
 public:
  explicit LtxvApp(streaming::EngineOptions engine = {}) : SeededApp(std::move(engine), "ltxv") {
    for (std::string name : {"ltxv", "ltxv_config"})
      save("diffusion_models", name, tensors_of(name), config_of_dump(name));
    save("vae", "ltxv_vae", tensors_of("ltxv_vae"), config_of_dump("ltxv_vae"));
    save("latent_upscale_models", "larger", tensors_of("ltxv_upsampler"), "{}");
    save("latent_upscale_models", "other", tensors_of("hunyuan_vae"), "{}");
    save("vae", "hunyuan_vae", tensors_of("hunyuan_vae"), "{}");
    auto all = tensors_of("ltxv", "model.diffusion_model.");
    save("checkpoints", "alone", all, "{}");
    all.merge(tensors_of("ltxv_vae", "vae."));
    save("checkpoints", "whole", all, config_of_dump("ltxv_vae"));
    add_inputs();
  }

 private:
  void save(const std::string& type, const std::string& name,
            const std::map<std::string, at::Tensor>& tensors, const std::string& config) {
    fs::create_directories(folder() / type);
    std::vector<formats::TensorToWrite> list;
    for (const auto& [tensor, value] : tensors)
      list.push_back({tensor,
                      formats::DType::F32,
                      value.sizes().vec(),
                      {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()}});
    formats::write_safetensors(folder() / type / (name + ".safetensors"), list,
                               {{"config", config}});
    app.folders.add(type, folder() / type);
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
         .inputs = {graph::text("name"), graph::integer("tokens"), graph::integer("counting")},
         .outputs = {"CONDITIONING"},
         .run = [](graph::Call& call) {
           sampling::ConditioningItem item;
           auto tokens = call.integer("tokens");
           item.cross_attn = tiny_weight(call.text("name"), {1, tokens, 24});
           auto mask = at::zeros({1, tokens});
           mask.narrow(1, 0, call.integer("counting")).fill_(1);
           item.tensors["attention_mask"] = mask;
           call.out(0, Value::of("CONDITIONING", sampling::Conditioning{item}));
         }});
    catalog.add(
        {.name = "TinySlopes",
         .inputs = {graph::integer("height"), graph::integer("width")},
         .outputs = {"IMAGE"},
         .run = [](graph::Call& call) {
           auto height = call.integer("height"), width = call.integer("width");
           auto rows = (at::arange(height) / static_cast<double>(height)).view({-1, 1});
           auto columns = (at::arange(width) / static_cast<double>(width)).view({1, -1});
           auto image = at::stack(
               {rows.expand({height, width}), columns.expand({height, width}), rows * columns}, -1);
           call.out(0, Value::of("IMAGE", image.unsqueeze(0).to(at::kFloat)));
         }});
  }
};

Json& node_of(Json& workflow, const std::string& type) {
  for (auto& [id, node] : workflow.items())
    if (node["class_type"] == type) return node["inputs"];
  FAIL("no node " << type);
  return workflow;
}

Json conditioned(const Json& rate = 25.0) {
  return {{"1", node("TinyConditioning", {{"name", "cat"}, {"tokens", 5}, {"counting", 4}})},
          {"2", node("LTXVConditioning",
                     {{"positive", {"1", 0}}, {"negative", {"1", 0}}, {"frame_rate", rate}})}};
}

}  // namespace

TEST_CASE("any device: LTX-Video's nodes give ComfyUI's latents") {
  streaming::EngineOptions options;
  options.default_device = test_device_or("cpu");
  LtxvApp tiny(options);
  check_latents(tiny, "nodes_ltxv");
}

TEST_CASE("LTX-Video: split over devices, the same bits") {
  check_split<LtxvApp>("nodes_ltxv", {"text", "image", "guides"});
}

TEST_CASE("LTX-Video nodes: blank latents, and what a guide leaves behind") {
  LtxvApp tiny;
  auto prompt = conditioned(24.0);
  prompt["3"] = node("EmptyLTXVLatentVideo",
                     {{"width", 96}, {"height", 64}, {"length", 20}, {"batch_size", 2}});
  prompt["4"] = node("TinyVideo", {{"name", "p"}, {"frames", 1}, {"height", 64}, {"width", 64}});
  prompt["5"] = node("VAELoader", {{"vae_name", "ltxv_vae.safetensors"}});
  prompt["6"] = node("LTXVAddGuide", {{"positive", {"2", 0}},
                                      {"negative", {"2", 1}},
                                      {"vae", {"5", 0}},
                                      {"latent", {"3", 0}},
                                      {"image", {"4", 0}},
                                      {"frame_idx", 9},
                                      {"strength", 0.75}});
  prompt["7"] = node("LTXVCropGuides",
                     {{"positive", {"6", 0}}, {"negative", {"6", 1}}, {"latent", {"6", 2}}});
  auto latent = [&](const char* id, int slot) {
    return tiny.value_of(prompt, {id, slot}).as<sampling::Latent>();
  };
  CHECK(latent("3", 0).samples.sizes() == at::IntArrayRef({2, 128, 3, 2, 3}));
  auto guided = latent("6", 2);
  CHECK(guided.samples.sizes() == at::IntArrayRef({2, 128, 4, 2, 3}));
  CHECK(guided.noise_mask.flatten(1)[1].equal(at::tensor({1.0f, 1.0f, 1.0f, 0.25f})));
  CHECK(at::equal(guided.samples[0].select(1, 3), guided.samples[1].select(1, 3)));
  auto item = tiny.value_of(prompt, {"6", 1}).as<sampling::Conditioning>().at(0);
  CHECK(item.numbers.at("frame_rate") == 24.0);
  auto places = item.tensors.at("keyframe_idxs");
  CHECK(places.sizes() == at::IntArrayRef({1, 3, 6}));
  CHECK(places[0].select(1, 4).equal(at::tensor({9, 32, 32}, at::kLong)));
  auto cropped = latent("7", 2);
  CHECK(cropped.samples.sizes() == at::IntArrayRef({2, 128, 3, 2, 3}));
  CHECK(tiny.value_of(prompt, {"7", 0})
            .as<sampling::Conditioning>()
            .at(0)
            .tensors.count("keyframe_idxs") == 0);
  // A latent without guides stays as it is.
  prompt["7"]["inputs"] = {{"positive", {"2", 0}}, {"negative", {"2", 1}}, {"latent", {"3", 0}}};
  CHECK(latent("7", 2).samples.sizes() == at::IntArrayRef({2, 128, 3, 2, 3}));
}

TEST_CASE("LTXVLatentUpsampler: a latent twice as large, as ComfyUI makes it") {
  LtxvApp tiny;
  tiny.catalog.add(
      {.name = "SmallLatent", .outputs = {"LATENT"}, .run = [](graph::Call& call) {
         call.out(
             0, graph::Value::of("LATENT", sampling::Latent{tiny_weight("small", {1, 128, 2, 2, 3}),
                                                            at::ones({1, 1, 2, 1, 1}),
                                                            {}}));
       }});
  Json prompt = {
      {"1", node("SmallLatent")},
      {"2", node("LatentUpscaleModelLoader", {{"model_name", "larger.safetensors"}})},
      {"3", node("VAELoader", {{"vae_name", "ltxv_vae.safetensors"}})},
      {"4", node("LTXVLatentUpsampler",
                 {{"samples", {"1", 0}}, {"upscale_model", {"2", 0}}, {"vae", {"3", 0}}})}};
  auto latent = tiny.value_of(prompt, {"4", 0}).as<sampling::Latent>();
  CHECK(difference(latent.samples, Dump("ltxv_upsampler")["node"]) < 1e-4);
  CHECK_FALSE(latent.noise_mask.defined());
  auto wrong = prompt;
  wrong["3"]["inputs"]["vae_name"] = "hunyuan_vae.safetensors";
  CHECK(tiny.error(wrong, {"4", 0}).find("link the VAE of LTX-Video") != std::string::npos);
  wrong = prompt;
  wrong["2"]["inputs"]["model_name"] = "other.safetensors";
  CHECK(tiny.error(wrong, {"4", 0}).find("holds no latent upscaler") != std::string::npos);
  prompt["1"] = node("EmptyLatentImage", {{"width", 64}, {"height", 64}, {"batch_size", 1}});
  CHECK(tiny.error(prompt, {"4", 0}).find("enlarges latents of 128 channels") != std::string::npos);
}

TEST_CASE("LTXVPreprocess: a picture as H.264 leaves it, as PyAV gives it") {
  LtxvApp tiny;
  Json prompt = {{"1", node("TinySlopes", {{"height", 34}, {"width", 48}})},
                 {"2", node("LTXVPreprocess", {{"image", {"1", 0}}, {"img_compression", 40}})},
                 {"3", node("LTXVPreprocess", {{"image", {"1", 0}}, {"img_compression", 0}})}};
  auto image = [&](const char* id) { return tiny.value_of(prompt, {id, 0}).as<at::Tensor>(); };
  auto plain = image("1"), got = image("2");
  auto wanted = Dump("nodes_ltxv")["preprocessed"].to(at::kFloat) / 255.0;
  REQUIRE(got.sizes() == wanted.sizes());
  const auto lost = (wanted - plain).abs().mean().item<double>();
  // Encoders of different versions differ a little, and by less than what any of them loses.
  CHECK((got - wanted).abs().mean().item<double>() < 0.25 * lost);
  CHECK((got - plain).abs().mean().item<double>() > 0.5 * lost);
  CHECK(at::equal(image("3"), plain));
  prompt["1"]["inputs"] = {{"height", 1}, {"width", 48}};
  CHECK(tiny.error(prompt, {"2", 0}).find("at least 2 x 2 pixels") != std::string::npos);
}

TEST_CASE("LTXVLoader: model and autoencoder of one file, as its parts loaded alone") {
  LtxvApp tiny;
  auto one = workflow_case("nodes_ltxv", "image");
  auto& workflow = one["workflow"];
  for (const char* type : {"LTXVLoader", "LTXVLoaderMultiGPU"}) {
    CAPTURE(type);
    auto changed = one;
    for (auto& [id, given] : changed["workflow"].items()) {
      for (auto& input : given["inputs"])
        if (input.is_array() && workflow[input[0].get<std::string>()]["class_type"] == "VAELoader")
          input[1] = 1;
      if (given["class_type"] == "UNETLoader" || given["class_type"] == "VAELoader") {
        given = node(type, {{"ckpt_name", "whole.safetensors"}, {"dtype", "float32"}});
        if (std::string(type) != "LTXVLoader") given["inputs"]["device"] = "cpu";
      }
    }
    CHECK(difference(tiny.latent(changed), Dump("nodes_ltxv")["image"]) < 1e-4);
  }
  Json prompt = {
      {"1", node("LTXVLoader", {{"ckpt_name", "whole.safetensors"}, {"dtype", "bfloat16"}})},
      {"2", node("LTXVLoader", {{"ckpt_name", "alone.safetensors"}, {"dtype", "float32"}})},
      {"3", node("LTXVLoader", {{"ckpt_name", "tiny_sd1.safetensors"}, {"dtype", "float32"}})}};
  auto model = tiny.value_of(prompt, {"1", 0}).as<nodes::Model>();
  CHECK((model.loaded->weights->options().dtype == at::kBFloat16));
  CHECK(tiny.error(prompt, {"2", 1}).find("holds no autoencoder") != std::string::npos);
  CHECK(tiny.error(prompt, {"3", 0}).find("holds a model of SD1.x") != std::string::npos);
}

TEST_CASE("LTX tricks: layers, scales, and models of other families") {
  LtxvApp tiny;
  auto one = workflow_case("nodes_ltxv", "perturbed");
  auto& workflow = one["workflow"];
  auto usual = tiny.latent(one);
  // Words that are no numbers are passed over.
  node_of(workflow, "LTXAttnOverride")["layers"] = "one, 1,, x1, 1x";
  CHECK(at::equal(tiny.latent(one), usual));
  node_of(workflow, "LTXAttnOverride")["layers"] = "";
  CHECK(difference(tiny.latent(one), usual) > 1e-3);
  // Of a scale of 0 the positive estimate is left, whatever the sampler's scale.
  auto& perturbed = node_of(workflow, "LTXPerturbedAttention");
  perturbed["scale"] = 0.0;
  auto positive = tiny.latent(one);
  auto plain = one;
  node_of(plain["workflow"], "SamplerCustom")["cfg"] = 1.0;
  CHECK(difference(tiny.latent(plain), positive) < 1e-6);
  auto model = perturbed["model"];
  for (auto& [id, given] : workflow.items())
    if (given["class_type"] == "LTXPerturbedAttention")
      given = node("ModifyLTXModel", {{"model", model}});
  node_of(workflow, "SamplerCustom")["cfg"] = 1.0;
  CHECK(difference(tiny.latent(one), positive) < 1e-6);
  Json prompt = {
      {"1", node("CheckpointLoaderSimple", {{"ckpt_name", "tiny_sd1.safetensors"}})},
      {"2", node("ModifyLTXModel", {{"model", {"1", 0}}})},
      {"3", node("LTXPerturbedAttention",
                 {{"model", {"1", 0}}, {"scale", 1.0}, {"rescale", 0.5}, {"cfg", 3.0}})}};
  for (const char* id : {"2", "3"})
    CHECK(tiny.error(prompt, {id, 0}).find("is a model of SD1.x") != std::string::npos);
}

TEST_CASE("LTX-Video nodes: what does not fit is refused in one sentence") {
  LtxvApp tiny;
  auto says = [&](Json prompt, const Json& link, const std::string& sentence) {
    const auto error = tiny.error(std::move(prompt), link);
    INFO(error);
    CHECK(error.find(sentence) != std::string::npos);
  };
  auto image = workflow_case("nodes_ltxv", "image");
  auto change = [&](Json one, const std::string& type, const char* input, const Json& value,
                    const std::string& sentence) {
    node_of(one["workflow"], type)[input] = value;
    says(one["workflow"], one["latent"], sentence);
  };
  change(image, "VAELoader", "vae_name", "hunyuan_vae.safetensors", "load the VAE of LTX-Video");
  change(image, "TinyVideo", "frames", 4, "encodes clips of 1 + 8 · n frames");
  change(image, "TinyVideo", "frames", 41, "'length' has to be as long as the pictures");
  auto guides = workflow_case("nodes_ltxv", "guides");
  change(guides, "LTXVAddGuide", "frame_idx", 30, "choose an earlier frame_idx or fewer pictures");
  says(conditioned(0.0), {"2", 0}, "needs a frame_rate above 0");
  auto prompt = conditioned();
  prompt["3"] = node("EmptyLatentImage", {{"width", 64}, {"height", 64}, {"batch_size", 1}});
  prompt["4"] = node("LTXVCropGuides",
                     {{"positive", {"2", 0}}, {"negative", {"2", 1}}, {"latent", {"3", 0}}});
  says(prompt, {"4", 2}, "takes latents of 128 channels with frames");
  prompt["3"] = node("EmptyHunyuanLatentVideo",
                     {{"width", 64}, {"height", 64}, {"length", 9}, {"batch_size", 1}});
  says(prompt, {"4", 2}, "takes latents of 128 channels with frames");
  prompt["5"] = node("VAELoader", {{"vae_name", "ltxv_vae.safetensors"}});
  prompt["6"] = node("VAEDecode", {{"samples", {"3", 0}}, {"vae", {"5", 0}}});
  says(prompt, {"6", 0}, "decodes latents of 128 channels, got 16");
}
