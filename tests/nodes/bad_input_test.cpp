#include "tests/nodes/tiny_controls.h"
#include "tests/nodes/tiny_seeded.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

/// Files of other models, and models of which not all files are there.
namespace {

Json cat_from(const char* loader) {
  return node("CLIPTextEncode", {{"text", "a cat"}, {"clip", {loader, 1}}});
}

/// The tiny FLUX.1 in one file and in three, with SD 1.x beside it.
class BadApp : public SeededApp {
 public:
  BadApp() : SeededApp({}, "bad") {
    auto all = tiny_tensors({"flux_dev"});
    write("diffusion_models", "flux", all);
    std::map<std::string, at::Tensor> parts[3];
    std::size_t count = 0;
    for (const auto& [name, tensor] : all) parts[3 * count++ / all.size()][name] = tensor;
    for (int i = 0; i < 3; ++i) {
      write("diffusion_models", shard_name(i), parts[i]);
      for (const auto& [name, tensor] : parts[i])
        index_["weight_map"][name] = shard_name(i) + ".safetensors";
    }
  }

  static std::string shard_name(int index) {
    return "split-0000" + std::to_string(index + 1) + "-of-00003";
  }
  fs::path models() const { return folder() / "diffusion_models"; }
  void write_index() { std::ofstream(models() / "split.safetensors.index.json") << index_.dump(); }

  /// Four steps with the diffusion model in `file` and a conditioning that fits it.
  static Json sampled(const std::string& file) {
    auto prompt = sampling_prompt();
    prompt["8"] = node("UNETLoader", {{"unet_name", file}, {"weight_dtype", "default"}});
    prompt["9"] = node("Fitting", {{"tokens", 7}});
    prompt["4"] = node("EmptySD3LatentImage", {{"width", 64}, {"height", 64}, {"batch_size", 1}});
    prompt["5"]["inputs"].update(
        {{"model", {"8", 0}}, {"positive", {"9", 0}}, {"negative", {"9", 0}}, {"cfg", 1.0}});
    prompt.erase("2");
    prompt.erase("3");
    return prompt;
  }

  std::string error(Json prompt) {
    prompt["keep"] = node("Keep", {{"value", {"5", 0}}});
    auto result = run(prompt);
    std::string all = result.error;
    for (const auto& line : result.validation.lines()) all += line;
    return all;
  }

  void add_fitting() {
    catalog.add({.name = "Fitting",
                 .inputs = {graph::integer("tokens")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   sampling::ConditioningItem item;
                   item.cross_attn = tiny_weight("fits", {1, call.integer("tokens"), 24});
                   item.pooled_output = tiny_weight("fits pooled", {1, 20});
                   call.out(0, graph::Value::of("CONDITIONING", sampling::Conditioning{item}));
                 }});
  }

 private:
  Json index_;
};

bool contains(const std::string& text, const std::string& part) {
  CAPTURE(text);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a model in several files: any of them loads all, by number or by the index") {
  BadApp tiny;
  tiny.add_fitting();
  auto whole =
      tiny.value_of(BadApp::sampled("flux.safetensors"), {"5", 0}).as<sampling::Latent>().samples;
  for (bool with_index : {false, true}) {
    if (with_index) tiny.write_index();
    for (int shard : {0, 2}) {
      tiny.forget_results();
      auto prompt = BadApp::sampled(BadApp::shard_name(shard) + ".safetensors");
      auto latent = tiny.value_of(prompt, {"5", 0}).as<sampling::Latent>().samples;
      // Weights lie at other addresses, by whose alignment kernels are chosen.
      CHECK(test::difference(latent, whole) < 1e-6);
    }
  }
}

TEST_CASE("a model in several files: the absent ones are named, all at once") {
  BadApp tiny;
  tiny.add_fitting();
  fs::remove(tiny.models() / (BadApp::shard_name(1) + ".safetensors"));
  fs::remove(tiny.models() / (BadApp::shard_name(2) + ".safetensors"));
  auto prompt = BadApp::sampled(BadApp::shard_name(0) + ".safetensors");
  for (bool with_index : {false, true}) {
    if (with_index) tiny.write_index();
    auto error = tiny.error(prompt);
    CHECK(contains(error,
                   "split-00001-of-00003.safetensors: is one of 3 files of a model; 2 of "
                   "them are not in its folder: split-00002-of-00003.safetensors, "
                   "split-00003-of-00003.safetensors"));
  }
  std::ofstream(tiny.models() / "split.safetensors.index.json") << "{}";
  CHECK(contains(tiny.error(prompt), "split.safetensors.index.json: is no index of a model"));
}

TEST_CASE("a model in several files: the same name in two of them is refused") {
  BadApp tiny;
  tiny.add_fitting();
  fs::copy_file(tiny.models() / (BadApp::shard_name(0) + ".safetensors"),
                tiny.models() / (BadApp::shard_name(1) + ".safetensors"),
                fs::copy_options::overwrite_existing);
  CHECK(contains(tiny.error(BadApp::sampled(BadApp::shard_name(0) + ".safetensors")),
                 "which split-00001-of-00003.safetensors holds too"));
}

TEST_CASE("FLUX with the text of one CLIP: both files and what would fit") {
  BadApp tiny;
  tiny.add_fitting();
  auto prompt = BadApp::sampled("flux.safetensors");
  prompt["1"] = node("CheckpointLoaderSimple", {{"ckpt_name", "tiny_sd1.safetensors"}});
  prompt["2"] = cat_from("1");
  prompt["5"]["inputs"]["positive"] = {"2", 0};
  auto error = tiny.error(prompt);
  CHECK(contains(error, "flux.safetensors (FLUX"));
  CHECK(contains(error, "takes a text conditioning ('context') of [batch, tokens, 24]"));
  CHECK(contains(error, "it was made by tiny_sd1.safetensors"));
}

TEST_CASE("a LoRA of another kind of model is refused by both names") {
  BadApp tiny;
  tiny.add_fitting();
  fs::create_directories(tiny.folder() / "loras");
  write_tensors(
      tiny.folder() / "loras" / "of_sdxl.safetensors",
      {{"lora_unet_input_blocks_4_1_proj_in.lora_up.weight", at::ones({8, 2})},
       {"lora_unet_input_blocks_4_1_proj_in.lora_down.weight", at::ones({2, 8})},
       {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", at::ones({8, 2})},
       {"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", at::ones({2, 8})}});
  tiny.app.folders.add("loras", tiny.folder() / "loras");
  auto prompt = BadApp::sampled("flux.safetensors");
  prompt["10"] =
      node("LoraLoaderModelOnly",
           {{"model", {"8", 0}}, {"lora_name", "of_sdxl.safetensors"}, {"strength_model", 1.0}});
  prompt["5"]["inputs"]["model"] = {"10", 0};
  auto error = tiny.error(prompt);
  CHECK(contains(error, "of_sdxl.safetensors: changes nothing in flux.safetensors, which is FLUX"));
}

TEST_CASE("a ControlNet of UNets on FLUX, and one of SD3, are refused before they run") {
  write_tiny_controls();
  BadApp tiny;
  tiny.add_fitting();
  auto prompt = BadApp::sampled("flux.safetensors");
  prompt["10"] =
      node("EmptyImage", {{"width", 64}, {"height", 64}, {"batch_size", 1}, {"color", 9}});
  prompt["11"] = node("ControlNetLoader", {{"control_net_name", "control_sd1.safetensors"}});
  prompt["12"] = node("ControlNetApplyAdvanced", {{"positive", {"9", 0}},
                                                  {"negative", {"9", 0}},
                                                  {"control_net", {"11", 0}},
                                                  {"image", {"10", 0}},
                                                  {"strength", 1.0},
                                                  {"start_percent", 0.0},
                                                  {"end_percent", 1.0}});
  prompt["5"]["inputs"]["positive"] = {"12", 0};
  prompt["5"]["inputs"]["negative"] = {"12", 1};
  auto error = tiny.error(prompt);
  MESSAGE(error);
  CHECK(contains(error, "belongs to another model"));
}
