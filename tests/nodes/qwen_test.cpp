#include "distorch/device/sim/sim.h"
#include "tests/nodes/tiny_qwen.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// with_split_model(), and everything else on sim:1.
Json split(Json workflow, const std::string& allocation) {
  workflow = with_split_model(std::move(workflow), allocation);
  for (auto& [id, node] : workflow.items())
    if (node["class_type"] == "VAELoader" || node["class_type"] == "ControlNetLoader") {
      node["class_type"] = node["class_type"].get<std::string>() + "MultiGPU";
      node["inputs"]["device"] = "sim:1";
    }
  return workflow;
}

}  // namespace

TEST_CASE("any device: Qwen-Image's workflows give ComfyUI's latents") {
  streaming::EngineOptions options;
  options.default_device = test_device_or("cpu");
  QwenApp tiny(options);
  Dump dump("nodes_qwen");
  double worst = 0;
  for (const auto& one : qwen_cases()) {
    auto title = one["name"].get<std::string>();
    for (const auto& [key, output] : one["outputs"].items()) {
      INFO(title << " " << key);
      auto error = difference(result_of(tiny, one, key), dump[title + "/" + key]);
      CHECK(error < 1e-4);
      worst = std::max(worst, error);
    }
  }
  MESSAGE("Qwen-Image: " << qwen_cases().size() << " workflows, largest difference " << worst);
}

TEST_CASE("Qwen-Image: a ControlNet without VAE, and a patch on another model, name their files") {
  QwenApp tiny;
  auto prompt = qwen_case("control")["workflow"];
  for (auto& [id, node] : prompt.items())
    if (node["class_type"] == "ControlNetApplyAdvanced") node["inputs"].erase("vae");
  auto run = [&](Json prompt, const Json& link) {
    prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", link}}}};
    return tiny.run(prompt).error;
  };
  auto error = run(prompt, qwen_case("control")["outputs"]["latent"]["node"]);
  CHECK(error.find("qwen_control.safetensors") != std::string::npos);
  CHECK(error.find("connect the model's VAE") != std::string::npos);
  prompt = qwen_case("patch")["workflow"];
  prompt["90"] = {{"class_type", "CheckpointLoaderSimple"},
                  {"inputs", {{"ckpt_name", "tiny_sd1.safetensors"}}}};
  for (auto& [id, node] : prompt.items())
    if (node["class_type"] == "QwenImageDiffsynthControlnet") node["inputs"]["model"] = {"90", 0};
  error = run(prompt, qwen_case("patch")["outputs"]["latent"]["node"]);
  CHECK(error.find("qwen_patch_plain.safetensors") != std::string::npos);
  CHECK(error.find("tiny_sd1.safetensors") != std::string::npos);
}

TEST_CASE("Qwen-Image: split over devices, with ControlNet and patches, the same bits") {
  auto rig = small_rig();
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  for (std::string name : {"text", "edit_index_timestep_zero", "control", "patches"}) {
    auto one = qwen_case(name);
    at::Tensor whole;
    for (const char* allocation : {"sim:0,100%", "cpu,*", "sim:0,100kb;sim:1,100kb;cpu,*"}) {
      INFO(name << " " << allocation);
      QwenApp tiny(options);
      auto prompt = one;
      prompt["workflow"] = split(one["workflow"], allocation);
      auto latent = result_of(tiny, prompt, "latent");
      if (!whole.defined()) whole = latent;
      CHECK(at::equal(latent, whole));
    }
    CHECK(difference(whole, Dump("nodes_qwen")[name + "/latent"]) < 1e-4);
  }
}
