// Loaders whose device variants came after those of the plain models.
#include "distorch/models/latent_formats.h"
#include "distorch/models/sd/unet_config.h"
#include "distorch/nodes/clip_vision.h"
#include "tests/nodes/tiny_seeded.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;
using graph::Value;

namespace {

streaming::EngineOptions simulated_devices() {
  const auto rig = small_rig();
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  return options;
}

class LoadersApp : public SeededApp {
 public:
  explicit LoadersApp(streaming::EngineOptions engine = {})
      : SeededApp(std::move(engine), "placed_loaders") {
    write("clip_vision", "tiny", tiny_tensors({"clip_vision"}));
    write("vae_approx", "tiny_video", tiny_tensors({"taehv"}));
    write("vae_approx", "tiny_pictures", tiny_tensors({"taesd"}));
    catalog.add({.name = "TinyVideo",
                 .inputs = {graph::text("name")},
                 .outputs = {"LATENT"},
                 .run = [](graph::Call& call) {
                   // As the wrapper's sampler leaves them.
                   auto samples = models::wan21_latent().into_network(
                       tiny_weight(call.text("name"), {1, 16, 1, 1, 2}) * 8);
                   call.out(0, Value::of("LATENT", sampling::Latent{samples, {}, {}}));
                 }});
    add_pictures(4);
  }

  using SeededApp::write;
};

/// The part of tensors below a prefix, under the names that `names` has for them.
std::map<std::string, at::Tensor> part(const std::map<std::string, at::Tensor>& tensors,
                                       const std::string& prefix,
                                       const std::map<std::string, std::string>& names = {}) {
  std::map<std::string, at::Tensor> result;
  for (const auto& [name, tensor] : tensors) {
    if (!name.starts_with(prefix)) continue;
    auto below = name.substr(prefix.size());
    auto found = names.find(below);
    result[found == names.end() ? below : found->second] = tensor;
  }
  return result;
}

/// tiny_sd1 as diffusers keeps it, below a folder of models.
void write_diffusers(const fs::path& folder) {
  const auto tensors = tiny_tensors({"unet_sd1", "vae", "clip_l"});
  const auto unet = part(tensors, "model.diffusion_model.");
  TemporaryCheckpoint file(unet);
  std::map<std::string, std::string> names;
  for (const auto& [theirs, ours] : models::sd::diffusers_names(models::sd::unet_config(*file)))
    names[ours] = theirs;
  auto put = [&](const char* name, const char* file_name,
                 const std::map<std::string, at::Tensor>& part_of_it) {
    fs::create_directories(folder / name);
    write_tensors(folder / name / file_name, part_of_it);
  };
  const auto renamed = part(tensors, "model.diffusion_model.", names);
  REQUIRE(renamed.count("down_blocks.0.resnets.0.conv1.weight"));
  put("unet", "diffusion_pytorch_model.safetensors", renamed);
  put("vae", "diffusion_pytorch_model.safetensors", part(tensors, "first_stage_model."));
  put("text_encoder", "model.safetensors", part(tensors, "cond_stage_model.transformer."));
  std::ofstream(folder / "model_index.json") << "{}";
}

}  // namespace

TEST_CASE("CLIPVisionLoader's variants: on each device and spread over them, the same numbers") {
  const auto options = simulated_devices();
  Json prompt = {{"1", node("CLIPVisionLoader", {{"clip_name", "tiny.safetensors"}})},
                 {"2", node("TinyImage", {{"name", "cat"}, {"height", 40}, {"width", 30}})},
                 {"3", node("CLIPVisionEncode",
                            {{"clip_vision", {"1", 0}}, {"image", {"2", 0}}, {"crop", "center"}})}};
  auto embeds = [&](const std::string& type, const Json& more) {
    LoadersApp tiny(options);
    prompt["1"]["class_type"] = type;
    prompt["1"]["inputs"].update(more);
    const auto device =
        tiny.value_of(prompt, {"1", 0}).as<nodes::ClipVision>().loaded->weights->options().compute;
    if (more.contains("device")) CHECK(device == more["device"].get<std::string>());
    return tiny.value_of(prompt, {"3", 0}).as<nodes::VisionOutput>().embeds;
  };
  const auto plain = embeds("CLIPVisionLoader", Json::object());
  for (const char* device : {"cpu", "sim:0", "sim:1"})
    CHECK(difference(embeds("CLIPVisionLoaderMultiGPU", {{"device", device}}), plain) < 1e-5);
  for (const char* allocation : {"sim:1,100%", "cpu,*", "sim:0,20kb;sim:1,20kb;cpu,*"}) {
    CAPTURE(allocation);
    CHECK(difference(
              embeds("CLIPVisionLoaderDisTorch2MultiGPU", {{"device", "sim:0"},
                                                           {"virtual_vram_gb", 0.0},
                                                           {"donor_device", "cpu"},
                                                           {"expert_mode_allocations", allocation},
                                                           {"eject_models", false}}),
              plain) < 1e-5);
  }
}

TEST_CASE("DiffusersLoader opens a folder as the checkpoint of the same weights") {
  LoadersApp tiny;
  write_diffusers(tiny.folder() / "diffusers" / "author" / "tiny");
  fs::create_directories(tiny.folder() / "diffusers" / "none");
  // A loop of links is walked once.
  fs::create_directory_symlink(tiny.folder() / "diffusers",
                               tiny.folder() / "diffusers" / "none" / "loop");
  tiny.app.folders.add("diffusers", tiny.folder() / "diffusers");
  const auto* type = tiny.catalog.find("DiffusersLoader");
  REQUIRE(type);
  CHECK(type->find_input("model_path")->choices.read() == std::vector<std::string>{"author/tiny"});

  auto prompt = sampling_prompt();
  prompt["6"] = node("VAEDecode", {{"samples", {"5", 0}}, {"vae", {"1", 2}}});
  const auto wanted = tiny.value_of(prompt, {"6", 0}).as<at::Tensor>();
  prompt["1"] = node("DiffusersLoader", {{"model_path", "author/tiny"}});
  CHECK(at::equal(tiny.value_of(prompt, {"6", 0}).as<at::Tensor>(), wanted));

  fs::remove(tiny.folder() / "diffusers" / "author" / "tiny" / "vae" /
             "diffusion_pytorch_model.safetensors");
  tiny.forget_results();
  const auto error = tiny.error(prompt, {"6", 0});
  CAPTURE(error);
  CHECK(error.find("holds none of diffusion_pytorch_model.fp16.safetensors") != std::string::npos);
  CHECK(error.find("author/tiny/vae") != std::string::npos);
}

TEST_CASE("DiffusersLoader's variants place the UNet") {
  const auto options = simulated_devices();
  at::Tensor whole;
  for (const char* allocation : {"sim:0,100%", "cpu,*"}) {
    LoadersApp tiny(options);
    write_diffusers(tiny.folder() / "diffusers" / "tiny");
    tiny.app.folders.add("diffusers", tiny.folder() / "diffusers");
    auto prompt = sampling_prompt();
    prompt["1"] = node("DiffusersLoaderDisTorch2MultiGPU", {{"model_path", "tiny"},
                                                            {"compute_device", "sim:0"},
                                                            {"virtual_vram_gb", 0.0},
                                                            {"donor_device", "cpu"},
                                                            {"expert_mode_allocations", allocation},
                                                            {"eject_models", true}});
    const auto latent = tiny.value_of(prompt, {"5", 0}).as<sampling::Latent>().samples;
    if (!whole.defined()) whole = latent;
    CHECK(at::equal(latent, whole));
  }
}

TEST_CASE("WanVideoTinyVAELoader: TAEHV decodes in the wrapper as it does elsewhere") {
  LoadersApp tiny;
  Json prompt = {{"1", node("WanVideoTinyVAELoader",
                            {{"model_name", "tiny_video.safetensors"}, {"precision", "fp32"}})},
                 {"2", node("TinyVideo", {{"name", "taehv 1"}})},
                 {"3", node("WanVideoDecode", {{"vae", {"1", 0}},
                                               {"samples", {"2", 0}},
                                               {"enable_vae_tiling", false},
                                               {"tile_x", 272},
                                               {"tile_y", 272},
                                               {"tile_stride_x", 144},
                                               {"tile_stride_y", 128}})}};
  const auto wanted = Dump("taehv")["decode/1"][0].permute({1, 2, 3, 0}).clamp(0, 1);
  CHECK(difference(tiny.value_of(prompt, {"3", 0}).as<at::Tensor>(), wanted) < 1e-4);

  prompt["1"]["class_type"] = "WanVideoTinyVAELoaderMultiGPU";
  prompt["1"]["inputs"]["load_device"] = "cpu";
  CHECK(difference(tiny.value_of(prompt, {"3", 0}).as<at::Tensor>(), wanted) < 1e-4);
  CHECK(tiny.value_of(prompt, {"1", 1}).as<Json>() == "cpu");

  prompt["1"]["inputs"]["model_name"] = "tiny_pictures.safetensors";
  const auto error = tiny.error(prompt, {"3", 0});
  CAPTURE(error);
  CHECK(error.find("WanVideoTinyVAELoaderMultiGPU wants Wan 2.1's or 2.2's") != std::string::npos);
}
