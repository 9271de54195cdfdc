#include "distorch/base/rig.h"
#include "distorch/device/sim/sim.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// A machine with two accelerators of 512 MiB.
Rig two_accelerators() {
  return parse_rig(R"(
name: test
devices:
  - {name: "cuda:0", memory: 512MiB, tflops: {default: 10}, memory_bandwidth_GBps: 500}
  - {name: "cuda:1", memory: 512MiB, tflops: {default: 5}, memory_bandwidth_GBps: 300}
  - {name: cpu, memory: 16GiB, tflops: {default: 0.1}, memory_bandwidth_GBps: 20}
links:
  - {from: cpu, to: "cuda:0", GBps: 10}
  - {from: cpu, to: "cuda:1", GBps: 8}
)",
                   "test rig");
}

struct Case {
  const char* title;
  const char* expert;
  double virtual_gb;
  const char* donor;
};

Json workflow(const Case& one) {
  return {
      {"1",
       {{"class_type", "CheckpointLoaderSimpleDisTorch2MultiGPU"},
        {"inputs",
         {{"ckpt_name", "tiny_sd1.safetensors"},
          {"compute_device", "sim:0"},
          {"virtual_vram_gb", one.virtual_gb},
          {"donor_device", one.donor},
          {"expert_mode_allocations", one.expert},
          {"eject_models", true}}}}},
      {"2",
       {{"class_type", "CLIPTextEncode"},
        {"inputs", {{"text", "a (red:1.2) embedding:w64 cat"}, {"clip", {"1", 1}}}}}},
      {"3", {{"class_type", "CLIPTextEncode"}, {"inputs", {{"text", ""}, {"clip", {"1", 1}}}}}},
      {"4",
       {{"class_type", "EmptyLatentImage"},
        {"inputs", {{"width", 64}, {"height", 64}, {"batch_size", 1}}}}},
      {"8",
       {{"class_type", "LoraLoader"},
        {"inputs",
         {{"model", {"1", 0}},
          {"clip", {"1", 1}},
          {"lora_name", "kohya.safetensors"},
          {"strength_model", 0.8},
          {"strength_clip", 0.0}}}}},
      {"5",
       {{"class_type", "KSampler"},
        {"inputs",
         {{"model", {"8", 0}},
          {"positive", {"2", 0}},
          {"negative", {"3", 0}},
          {"latent_image", {"4", 0}},
          {"seed", 3},
          {"steps", 3},
          {"cfg", 2.0},
          {"sampler_name", "dpmpp_2m_sde"},
          {"scheduler", "karras"},
          {"denoise", 1.0}}}}},
      {"6", {{"class_type", "VAEDecode"}, {"inputs", {{"samples", {"5", 0}}, {"vae", {"1", 2}}}}}},
      {"keep latent", {{"class_type", "Keep"}, {"inputs", {{"value", {"5", 0}}}}}},
      {"keep image", {{"class_type", "Keep"}, {"inputs", {{"value", {"6", 0}}}}}},
      {"keep model", {{"class_type", "Keep"}, {"inputs", {{"value", {"1", 0}}}}}}};
}

struct Outcome {
  at::Tensor latent, image;
  std::map<std::string, std::int64_t> bytes;  // of the UNet's weights by the device they rest on
  std::string tables;
};

Outcome run_case(const Case& one) {
  streaming::EngineOptions options;
  options.rig = two_accelerators();
  TinyApp tiny(options, "placement");
  tiny.run_well(workflow(one));
  Outcome outcome;
  outcome.latent = tiny.kept.at("keep latent").as<sampling::Latent>().samples;
  outcome.image = tiny.kept.at("keep image").as<at::Tensor>();
  const auto& weights = *tiny.kept.at("keep model").as<nodes::Model>().loaded->weights;
  REQUIRE(weights.options().compute == "sim:0");
  for (std::size_t block = 0; block < weights.block_count(); ++block)
    outcome.bytes[weights.homes().at(block).device] += weights.file_bytes(static_cast<int>(block));
  outcome.tables = tiny.app.engine.tables_of(weights);
  return outcome;
}

}  // namespace

TEST_CASE("a UNet split over devices in every mode of the grammar gives the same bits") {
  sim::install(two_accelerators(), sim::Mode::Exec);
  auto reference = run_case({"all on sim:0", "", 0.0, "cpu"});
  CHECK(reference.bytes.size() == 1);
  CHECK(reference.bytes.count("sim:0") == 1);
  auto total = static_cast<double>(reference.bytes["sim:0"]);

  const Case cases[] = {
      {"bytes", "sim:0,8mb;sim:1,6mb;cpu,*", 0.0, "cpu"},
      {"bytes, the compute device takes the rest", "sim:1,5mb;cpu,7mb;sim:0,*", 0.0, "cpu"},
      {"ratio", "sim:0,25%;sim:1,25%;cpu,50%", 0.0, "cpu"},
      {"ratio without the compute device", "sim:1,50%;cpu,50%", 0.0, "cpu"},
      {"fraction", "sim:0,0.02;sim:1,0.01;cpu,0.002", 0.0, "cpu"},
      {"everything in RAM", "cpu,*", 0.0, "cpu"},
      {"everything on disk", "disk,100%", 0.0, "cpu"},
      {"virtual memory on the CPU", "", 0.02, "cpu"},
      {"virtual memory on an accelerator", "", 0.02, "sim:1"},
      {"full string", "#sim:0;0.03;sim:1,cpu", 0.0, "cpu"},
      {"expert side of a full string", "sim:0,10mb;cpu,*#sim:0;4;cpu", 0.0, "cpu"},
  };
  for (const auto& one : cases) {
    INFO(one.title);
    auto outcome = run_case(one);
    CHECK(at::equal(outcome.latent, reference.latent));
    CHECK(at::equal(outcome.image, reference.image));
    CHECK(outcome.bytes.size() > (std::string(one.title).find("everything") == 0 ? 0u : 1u));
    CHECK(outcome.tables.find("v2 Expert String") != std::string::npos);
    if (std::string(one.title) == "ratio") {
      // Within one block of what was asked for; blocks of this model reach 3 MB.
      CHECK(std::abs(static_cast<double>(outcome.bytes["cpu"]) - 0.5 * total) < 4e6);
      CHECK(std::abs(static_cast<double>(outcome.bytes["sim:1"]) - 0.25 * total) < 4e6);
    }
    if (std::string(one.title) == "everything in RAM") CHECK(outcome.bytes["sim:0"] < 0.01 * total);
  }
}
