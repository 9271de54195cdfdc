#include <fmt/format.h>

#include "distorch/device/sim/sim.h"
#include "distorch/streaming/trace.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

Json text(const char* words, const Json& clip) {
  return {{"class_type", "CLIPTextEncode"}, {"inputs", {{"text", words}, {"clip", clip}}}};
}

Json sampler(const char* model, const char* positive, const char* negative, const Json& latent,
             Json more) {
  Json inputs = {{"model", {model, 0}},
                 {"positive", {positive, 0}},
                 {"negative", {negative, 0}},
                 {"latent_image", latent},
                 {"noise_seed", 5},
                 {"steps", 6},
                 {"cfg", 3.0},
                 {"sampler_name", "dpmpp_2m"},
                 {"scheduler", "karras"}};
  inputs.update(more);
  return {{"class_type", "KSamplerAdvanced"}, {"inputs", inputs}};
}

/// The base model for three steps, then its refiner for three, on one device.
Json base_to_refiner(const std::string& device) {
  auto load = [&](const char* name) {
    return Json{{"class_type", "CheckpointLoaderSimpleMultiGPU"},
                {"inputs", {{"ckpt_name", name}, {"device", device}}}};
  };
  Json prompt = {{"base", load("tiny_sdxl.safetensors")},
                 {"refiner", load("tiny_refiner.safetensors")},
                 {"2", text("a red cat", {"base", 1})},
                 {"3", text("", {"base", 1})},
                 {"4", text("a red cat", {"refiner", 1})},
                 {"5", text("", {"refiner", 1})},
                 {"6",
                  {{"class_type", "EmptyLatentImage"},
                   {"inputs", {{"width", 64}, {"height", 64}, {"batch_size", 1}}}}}};
  prompt["7"] = sampler("base", "2", "3", {"6", 0},
                        {{"add_noise", "enable"},
                         {"start_at_step", 0},
                         {"end_at_step", 3},
                         {"return_with_leftover_noise", "enable"}});
  prompt["8"] = sampler("refiner", "4", "5", {"7", 0},
                        {{"add_noise", "disable"},
                         {"start_at_step", 3},
                         {"end_at_step", 10000},
                         {"return_with_leftover_noise", "disable"}});
  prompt["keep latent"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"8", 0}}}}};
  prompt["keep base"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"base", 0}}}}};
  prompt["keep refiner"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"refiner", 0}}}}};
  return prompt;
}

struct Run {
  at::Tensor latent;
  std::int64_t base = 0, refiner = 0;  // bytes of the UNets
  std::int64_t bytes_in = 0, peak = 0;
  double seconds = 0;  // of the virtual clock
};

Run run_with(std::int64_t budget) {
  auto rig = small_rig(1, 512 * kMiB);
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  if (budget > 0) options.budgets["sim:0"] = budget;
  TinyApp tiny(options, "sdxl");
  sim::reset_clock();
  sim::reset_peak(0);
  tiny.run_well(base_to_refiner("sim:0"));
  Run run;
  run.latent = tiny.kept.at("keep latent").as<sampling::Latent>().samples;
  run.bytes_in = sim::work(0).bytes_in;
  run.seconds = sim::finish();
  run.peak = sim::memory(0).peak;
  auto bytes = [&](const char* name) {
    return tiny.kept.at(name).as<nodes::Model>().loaded->weights->total_file_bytes();
  };
  run.base = bytes("keep base");
  run.refiner = bytes("keep refiner");
  return run;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_CASE("SDXL: base and refiner within memory for one of them: no error, no needless reload") {
  auto ample = run_with(0);
  // Room for the larger UNet and its activations, not for both.
  auto budget = std::max(ample.base, ample.refiner) + std::min(ample.base, ample.refiner) / 2;
  auto tight = run_with(budget);
  CHECK(at::equal(tight.latent, ample.latent));
  CHECK(tight.peak <= budget);
  MESSAGE("bytes to the device, ample " << ample.bytes_in << ", tight " << tight.bytes_in
                                        << "; base " << ample.base << ", refiner "
                                        << ample.refiner);
  // The clock decided what rests and what streams behind the computation: reloading everything
  // would take a load of both more.
  MESSAGE("seconds on the clock, ample " << ample.seconds << ", tight " << tight.seconds);
  CHECK(tight.seconds <= 1.1 * ample.seconds);
}

TEST_CASE("SDXL: cond and uncond go through the weights together, the sizes of each beside them") {
  TinyApp tiny;
  auto prompt = base_to_refiner("cpu");
  prompt.erase("8");
  prompt.erase("keep latent");
  prompt["2"] = {{"class_type", "CLIPTextEncodeSDXL"},
                 {"inputs",
                  {{"clip", {"base", 1}},
                   {"width", 512},
                   {"height", 768},
                   {"crop_w", 8},
                   {"crop_h", 0},
                   {"target_width", 1024},
                   {"target_height", 1024},
                   {"text_g", "a cat"},
                   {"text_l", "a dog"}}}};
  streaming::Trace trace;
  tiny.value_of(prompt, {"7", 0});
  CHECK(count(trace.to_json(), "\"time_embed\"") == 3);
}

TEST_CASE("DualCLIPLoader: two files in either order give what the checkpoint's encoders give") {
  TinyApp tiny;
  // More layers than the tiny ones have: by their number a file of its own is told.
  std::map<std::string, at::Tensor> l, g;
  for (const auto& [name, tensor] : tiny_tensors({"clip_l"}))
    l[name.substr(std::string("cond_stage_model.transformer.").size())] = tensor;
  const std::string prefix = "conditioner.embedders.0.model.", layer = "transformer.resblocks.";
  for (const auto& [name, tensor] : tiny_tensors({"clip_g"})) {
    auto bare = name.substr(prefix.size());
    g[bare] = tensor;
    if (bare.starts_with(layer + "2."))
      for (int i = 3; i < 32; ++i)
        g[layer + std::to_string(i) + bare.substr(layer.size() + 1)] = tensor * 0.1;
  }
  auto folder = tiny.folder() / "text_encoders";
  fs::create_directories(folder);
  write_tensors(folder / "l.safetensors", l);
  write_tensors(folder / "g.safetensors", g);
  tiny.app.folders.add("text_encoders", folder);
  auto encode = [&](const char* first, const char* second, const char* type) {
    Json prompt = {{"1",
                    {{"class_type", "DualCLIPLoader"},
                     {"inputs", {{"clip_name1", first}, {"clip_name2", second}, {"type", type}}}}},
                   {"2", text("a (red:1.3) cat", {"1", 0})},
                   {"keep", {{"class_type", "Keep"}, {"inputs", {{"value", {"2", 0}}}}}}};
    return prompt;
  };
  auto value = [&](const char* first, const char* second) {
    return tiny.value_of(encode(first, second, "sdxl"), {"2", 0})
        .as<sampling::Conditioning>()
        .at(0);
  };
  auto one = value("l.safetensors", "g.safetensors"),
       other = value("g.safetensors", "l.safetensors");
  CHECK(one.cross_attn.sizes() == at::IntArrayRef({1, 77, 128}));
  CHECK(one.pooled_output.sizes() == at::IntArrayRef({1, 1280}));
  CHECK(at::equal(one.cross_attn, other.cross_attn));
  CHECK(at::equal(one.pooled_output, other.pooled_output));

  auto refused = tiny.run(encode("l.safetensors", "g.safetensors", "flux"));
  CHECK(refused.error.find("'flux'") != std::string::npos);
  refused = tiny.run(encode("l.safetensors", "l.safetensors", "sdxl"));
  CHECK(refused.error.find("CLIP-L and OpenCLIP-G") != std::string::npos);
}

TEST_CASE("mixed weights: the file goes with the model, the same mix is one model") {
  TinyApp tiny;
  auto load = [](const char* name) {
    return Json{{"class_type", "CheckpointLoaderSimple"}, {"inputs", {{"ckpt_name", name}}}};
  };
  auto merge = [](double ratio) {
    return Json{{"class_type", "ModelMergeSimple"},
                {"inputs", {{"model1", {"1", 0}}, {"model2", {"2", 0}}, {"ratio", ratio}}}};
  };
  auto files = [&] {
    auto folder = tiny.app.settings.temp_folder / "mixed";
    return fs::exists(folder) ? std::distance(fs::directory_iterator(folder), {}) : 0;
  };
  Json prompt = {{"1", load("tiny_sdxl.safetensors")},
                 {"2", load("tiny_sdxl_b.safetensors")},
                 {"3", merge(0.25)},
                 {"4", merge(0.25)}};
  prompt["a"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"3", 0}}}}};
  prompt["b"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"4", 0}}}}};
  tiny.run_well(prompt);
  CHECK(files() == 1);
  CHECK(tiny.kept.at("a").as<nodes::Model>().loaded == tiny.kept.at("b").as<nodes::Model>().loaded);
  prompt["2"] = load("tiny_sd1.safetensors");
  auto refused = tiny.run(prompt);
  CHECK(refused.run.status == graph::RunStatus::Success);  // some weights have the same shape

  // A ratio of 1 is the first model itself.
  prompt["3"] = merge(1.0);
  prompt["4"] = merge(1.0);
  prompt["c"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"1", 0}}}}};
  tiny.run_well(prompt);
  CHECK(tiny.kept.at("a").as<nodes::Model>().loaded == tiny.kept.at("c").as<nodes::Model>().loaded);
  CHECK(files() == 0);
}

TEST_CASE("precision: --force-fp16 leaves the VAE alone, whose numbers overflow in it") {
  device::DeviceInfo gpu;
  gpu.name = "cuda:0";
  gpu.kind = "cuda";
  gpu.accelerator = true;
  nodes::Settings settings;
  settings.force_fp16 = true;
  CHECK((nodes::unet_dtype(settings, gpu, formats::DType::F32) == at::kHalf));
  CHECK((nodes::vae_dtype(settings, gpu) == at::kBFloat16));
  settings.vae_dtype = at::kHalf;
  CHECK((nodes::vae_dtype(settings, gpu) == at::kHalf));
  settings = {};
  settings.force_fp32 = true;
  CHECK((nodes::vae_dtype(settings, gpu) == at::kFloat));
}
