#include <fmt/format.h>

#include "distorch/base/rig.h"
#include "distorch/device/sim/sim.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/devices.h"

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

/// Where the test computes, and the accelerator that lends memory, "" where there is only one.
struct Machine {
  std::string compute, lender;
  std::int64_t total_bytes = 0;  // of the compute device
  std::optional<Rig> rig;        // of simulated devices
};

Machine test_machine() {
  Machine machine;
  machine.compute = test_device_name();
  if (machine.compute.rfind("sim", 0) == 0) {
    machine.rig = two_accelerators();
    sim::install(*machine.rig, sim::Mode::Exec);
  }
  machine.total_bytes = device::find_device(machine.compute).total_bytes;
  auto kind = machine.compute.substr(0, machine.compute.find(':'));
  for (const auto& info : device::list_devices())
    if (info.kind == kind && info.name != machine.compute && machine.lender.empty())
      machine.lender = info.name;
  return machine;
}

struct Case {
  std::string title;
  std::string expert;
  double virtual_gb;
  std::string donor;
};

Json workflow(const Case& one, const std::string& compute) {
  return {
      {"1",
       {{"class_type", "CheckpointLoaderSimpleDisTorch2MultiGPU"},
        {"inputs",
         {{"ckpt_name", "tiny_sd1.safetensors"},
          {"compute_device", compute},
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
          {"lora_name", "all_kinds.safetensors"},
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

Outcome run_case(const Case& one, const Machine& machine) {
  streaming::EngineOptions options;
  options.rig = machine.rig;
  TinyApp tiny(options, "placement");
  tiny.run_well(workflow(one, machine.compute));
  Outcome outcome;
  outcome.latent = tiny.kept.at("keep latent").as<sampling::Latent>().samples;
  outcome.image = tiny.kept.at("keep image").as<at::Tensor>();
  const auto& weights = *tiny.kept.at("keep model").as<nodes::Model>().loaded->weights;
  REQUIRE(weights.options().compute == machine.compute);
  for (std::size_t block = 0; block < weights.block_count(); ++block) {
    const auto& home = weights.homes().at(block);
    const auto bytes = weights.file_bytes(static_cast<int>(block));
    const auto resting = home.rests ? weights.resting_bytes(static_cast<int>(block)) : 0;
    outcome.bytes[home.device] += bytes - resting;
    if (resting > 0) outcome.bytes[machine.compute] += resting;
  }
  outcome.tables = tiny.app.engine.tables_of(weights);
  return outcome;
}

/// Every mode of the grammar; those that borrow from an accelerator only where there is one.
std::vector<Case> cases_of(const Machine& m) {
  // 10 MB as a share of the compute device, as a fraction takes it.
  auto fraction = 10e6 / static_cast<double>(m.total_bytes);
  std::vector<Case> cases = {
      {"bytes", m.compute + ",8mb;cpu,*", 0.0, "cpu"},
      {"bytes, the compute device takes the rest", "cpu,7mb;" + m.compute + ",*", 0.0, "cpu"},
      {"ratio", m.compute + ",50%;cpu,50%", 0.0, "cpu"},
      {"fraction", fmt::format("{},{:.12f};cpu,*", m.compute, fraction), 0.0, "cpu"},
      {"everything in RAM", "cpu,*", 0.0, "cpu"},
      {"everything on disk", "disk,100%", 0.0, "cpu"},
      {"virtual memory on the CPU", "", 0.02, "cpu"},
      {"full string", "#" + m.compute + ";0.03;cpu", 0.0, "cpu"},
      {"expert side of a full string", m.compute + ",10mb;cpu,*#" + m.compute + ";4;cpu", 0.0,
       "cpu"},
  };
  if (m.lender.empty()) return cases;
  cases.insert(
      cases.end(),
      {{"bytes, three places", m.compute + ",8mb;" + m.lender + ",6mb;cpu,*", 0.0, "cpu"},
       {"bytes, the rest stays", m.lender + ",5mb;cpu,7mb;" + m.compute + ",*", 0.0, "cpu"},
       {"ratio, three places", m.compute + ",25%;" + m.lender + ",25%;cpu,50%", 0.0, "cpu"},
       {"ratio without the compute device", m.lender + ",50%;cpu,50%", 0.0, "cpu"},
       {"fraction, three places",
        fmt::format("{0},{2:.12f};{1},{3:.12f};cpu,0.002", m.compute, m.lender, fraction,
                    fraction / 2),
        0.0, "cpu"},
       {"virtual memory on an accelerator", "", 0.02, m.lender},
       {"full string, two lenders", "#" + m.compute + ";0.03;" + m.lender + ",cpu", 0.0, "cpu"}});
  return cases;
}

}  // namespace

TEST_CASE(
    "any device: a UNet split over devices in every mode of the grammar gives the same bits") {
  auto machine = test_machine();
  const auto& compute = machine.compute;
  auto reference = run_case({"all on " + compute, "", 0.0, "cpu"}, machine);
  CHECK(reference.bytes.size() == 1);
  CHECK(reference.bytes.count(compute) == 1);
  auto total = static_cast<double>(reference.bytes[compute]);
  auto on_cpu = run_case({"all on the CPU", "", 0.0, "cpu"}, {.compute = "cpu"});
  CHECK(difference(reference.latent, on_cpu.latent) < 1e-4);
  CHECK(difference(reference.image, on_cpu.image) < 1e-3);

  for (const auto& one : cases_of(machine)) {
    INFO(one.title);
    auto outcome = run_case(one, machine);
    CHECK(at::equal(outcome.latent, reference.latent));
    CHECK(at::equal(outcome.image, reference.image));
    CHECK(outcome.bytes.size() > (one.title.find("everything") == 0 ? 0u : 1u));
    CHECK(outcome.tables.find("v2 Expert String") != std::string::npos);
    // Within one block of what was asked for; blocks of this model reach 3 MB.
    if (one.title.starts_with("ratio"))
      CHECK(std::abs(static_cast<double>(outcome.bytes["cpu"]) - 0.5 * total) < 4e6);
    if (one.title == "ratio, three places")
      CHECK(std::abs(static_cast<double>(outcome.bytes[machine.lender]) - 0.25 * total) < 4e6);
    if (one.title == "everything in RAM") CHECK(outcome.bytes[compute] < 0.01 * total);
  }
}
