#include "distorch/nodes/team.h"

#include "distorch/nodes/replicas.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_controls.h"
#include "tests/support/interrupting_source.h"

// Conditionings on several devices at the same time, on simulated ones that compute the same bits.
using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// Slow enough that two devices pay for a tiny model.
Rig slow_rig(int accelerators = 2) {
  auto rig = small_rig(accelerators);
  for (auto& device : rig.devices)
    if (device.name.starts_with("sim")) device.tflops["default"] = 1e-3;
  return rig;
}

/// A prompt so long that it never shares a call with an empty one.
std::string long_text() {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "cat ";
  return text;
}

/// "split" stands between the model and the sampler, where it is asked for.
Json prompt_of(bool split, int most = 2) {
  auto prompt = sampling_prompt();
  prompt["2"]["inputs"]["text"] = long_text();
  prompt["split"] = node("MultiGPU_WorkUnits", {{"model", {"1", 0}}, {"max_gpus", most}});
  if (split) prompt["5"]["inputs"]["model"] = {"split", 0};
  return prompt;
}

at::Tensor latent_of(TinyApp& tiny, const Json& prompt) {
  return tiny.value_of(prompt, {"5", 0}).as<sampling::Latent>().samples;
}

std::shared_ptr<nodes::LoadedDiffusion> model_of(TinyApp& tiny, const Json& prompt) {
  return tiny.value_of(prompt, {"1", 0}).as<nodes::Model>().loaded;
}

std::shared_ptr<nodes::LoadedDiffusion> replica_on(TinyApp& tiny, const Json& prompt,
                                                   const std::string& device) {
  auto loaded = model_of(tiny, prompt);
  if (!loaded->replicas) return nullptr;
  auto found = loaded->replicas->by_device.find(device);
  if (found == loaded->replicas->by_device.end()) return nullptr;
  return std::static_pointer_cast<nodes::LoadedDiffusion>(found->second);
}

void check_computes_too(TinyApp& tiny, const Json& prompt, const std::string& device) {
  auto replica = replica_on(tiny, prompt, device);
  REQUIRE(replica);
  CHECK(replica->weights->device_bytes(device) > 0);
}

at::Tensor on_one_device(const Json& prompt) {
  TinyApp tiny(simulated(slow_rig()), "one");
  return latent_of(tiny, prompt);
}

double steps_s(TinyApp& tiny, const Json& prompt) {
  tiny.forget_results();
  latent_of(tiny, prompt);  // weights are in place, prompts encoded
  auto again = prompt;
  again["5"]["inputs"]["seed"] = 5;
  sim::finish();
  sim::reset_clock();
  latent_of(tiny, again);
  return sim::finish();
}

}  // namespace

TEST_CASE("CFG split: positive and negative at the same time on two devices, the same bits") {
  const auto wanted = on_one_device(prompt_of(false));
  TinyApp tiny(simulated(slow_rig()), "split");
  const auto prompt = prompt_of(true);
  CHECK(at::equal(latent_of(tiny, prompt), wanted));
  auto replica = replica_on(tiny, prompt, "sim:1");
  REQUIRE(replica);
  // One mapping of the file, weights on both.
  CHECK(replica->weights->checkpoint().path() ==
        model_of(tiny, prompt)->weights->checkpoint().path());
  CHECK(replica->weights->device_bytes("sim:1") > 0);
  CHECK(model_of(tiny, prompt)->weights->device_bytes("sim:1") == 0);
  CHECK(sim::work(1).flops > 0);
}

TEST_CASE("CFG split: prompts that would share a call differ by rounding alone") {
  auto prompt = prompt_of(false);
  prompt["2"]["inputs"]["text"] = "a cat";
  const auto wanted = on_one_device(prompt);
  prompt["5"]["inputs"]["model"] = {"split", 0};
  TinyApp tiny(simulated(slow_rig()), "split");
  CHECK(difference(latent_of(tiny, prompt), wanted) < 1e-5);
  CHECK(replica_on(tiny, prompt, "sim:1")->weights->loaded());
}

TEST_CASE("CFG split: by the settings alone, without a node") {
  const auto prompt = prompt_of(false);
  TinyApp tiny(simulated(slow_rig()), "split");
  tiny.app.settings.compute_devices = {"sim:0", "sim:1"};
  CHECK(at::equal(latent_of(tiny, prompt), on_one_device(prompt)));
  check_computes_too(tiny, prompt, "sim:1");
}

TEST_CASE("CFG split: nearly half the time where a step is computing, as the choice says") {
  // A thread of its own issues for each device, so that the host's time counts for neither.
  const auto prompt = prompt_of(true);
  TinyApp tiny(simulated(slow_rig()), "split");
  const double split = steps_s(tiny, prompt);
  const double one = steps_s(tiny, prompt_of(true, 1));
  MESSAGE("one device " << one << " s, two " << split << " s");
  CHECK(split < 0.9 * one);
}

TEST_CASE("CFG split: one device where a second is predicted not to pay") {
  auto rig = slow_rig();
  for (auto& device : rig.devices)
    if (device.name == "sim:1") device.tflops["default"] = 1e-5;
  const auto prompt = prompt_of(true);
  TinyApp tiny(simulated(rig), "slow second");
  latent_of(tiny, prompt);
  auto replica = replica_on(tiny, prompt, "sim:1");
  CHECK((!replica || !replica->weights->loaded()));
  CHECK(sim::work(1).flops == 0);
}

TEST_CASE(
    "CFG split: a model that was placed by hand, on a CPU, or with one device allowed stays") {
  TinyApp tiny(simulated(slow_rig(3)), "devices");
  auto model = tiny.value_of(prompt_of(true), {"split", 0}).as<nodes::Model>();
  const auto devices = [&] {
    return nodes::team_devices(model, tiny.app.settings, tiny.app.engine);
  };
  CHECK(devices() == std::vector<std::string>{"sim:0", "sim:1"});
  model.most_devices = 3;
  CHECK(devices() == std::vector<std::string>{"sim:0", "sim:1", "sim:2"});
  model.most_devices = 1;
  CHECK(devices().size() == 1);
  model.most_devices = 0;
  CHECK(devices().size() == 1);
  tiny.app.settings.compute_devices = {"sim:2", "sim:0", "cpu"};
  CHECK(devices() == std::vector<std::string>{"sim:0", "sim:2"});
  model.loaded->placement.allocation = "sim:0,50%;cpu,50%";
  CHECK(devices().size() == 1);
}

TEST_CASE("CFG split: LoRAs, more conditionings than devices, three devices") {
  auto prompt = prompt_of(false);
  prompt["lora"] =
      node("LoraLoaderModelOnly",
           {{"model", {"1", 0}}, {"lora_name", "all_kinds.safetensors"}, {"strength_model", 0.8}});
  prompt["split"]["inputs"]["model"] = {"lora", 0};
  prompt["5"]["inputs"]["model"] = {"lora", 0};
  // Two positives of unequal lengths, one of them in a part of the picture.
  prompt["part"] = node("ConditioningSetAreaPercentage", {{"conditioning", {"3", 0}},
                                                          {"width", 1.0},
                                                          {"height", 0.5},
                                                          {"x", 0.0},
                                                          {"y", 0.25},
                                                          {"strength", 0.7}});
  prompt["two"] =
      node("ConditioningCombine", {{"conditioning_1", {"2", 0}}, {"conditioning_2", {"part", 0}}});
  prompt["5"]["inputs"]["positive"] = {"two", 0};
  const auto wanted = on_one_device(prompt);
  auto plain = prompt;
  plain["5"]["inputs"]["model"] = {"1", 0};
  CHECK(difference(on_one_device(plain), wanted) > 1e-4);
  prompt["5"]["inputs"]["model"] = {"split", 0};
  for (int devices : {2, 3}) {
    CAPTURE(devices);
    prompt["split"]["inputs"]["max_gpus"] = devices;
    TinyApp tiny(simulated(slow_rig(3)), "more");
    CHECK(difference(latent_of(tiny, prompt), wanted) < 1e-5);
    CHECK(replica_on(tiny, prompt, "sim:1")->weights->loaded());
    CHECK((replica_on(tiny, prompt, "sim:2") != nullptr) == (devices == 3));
  }
}

TEST_CASE("CFG split: ControlNets run beside each, or where they were put for both") {
  write_tiny_controls();
  auto prompt = prompt_of(false);
  prompt["net"] = node("ControlNetLoader", {{"control_net_name", "control_sd1.safetensors"}});
  prompt["photo"] = node("LoadImage", {{"image", "photo.png"}});
  prompt["steer"] = node("ControlNetApplyAdvanced", {{"positive", {"2", 0}},
                                                     {"negative", {"3", 0}},
                                                     {"control_net", {"net", 0}},
                                                     {"image", {"photo", 0}},
                                                     {"strength", 0.7},
                                                     {"start_percent", 0.0},
                                                     {"end_percent", 1.0}});
  prompt["5"]["inputs"]["positive"] = {"steer", 0};
  prompt["5"]["inputs"]["negative"] = {"steer", 1};
  const auto wanted = on_one_device(prompt);
  CHECK(difference(on_one_device(prompt_of(false)), wanted) > 1e-4);
  prompt["5"]["inputs"]["model"] = {"split", 0};
  {
    TinyApp tiny(simulated(slow_rig()), "controls");
    CHECK(at::equal(latent_of(tiny, prompt), wanted));
    auto net = tiny.value_of(prompt, {"net", 0}).as<nodes::ControlNet>().loaded;
    REQUIRE(net->replicas);
    auto replica =
        std::static_pointer_cast<nodes::LoadedControl>(net->replicas->by_device.at("sim:1"));
    CHECK(replica->weights->device_bytes("sim:1") > 0);
  }
  auto apart = prompt;
  apart["net"] = node("ControlNetLoaderMultiGPU",
                      {{"control_net_name", "control_sd1.safetensors"}, {"device", "sim:2"}});
  TinyApp tiny(simulated(slow_rig(3)), "controls apart");
  CHECK(at::equal(latent_of(tiny, apart), wanted));
  check_computes_too(tiny, apart, "sim:1");
  CHECK(!tiny.value_of(apart, {"net", 0}).as<nodes::ControlNet>().loaded->replicas);
}

TEST_CASE("CFG split: an interrupt stops both within the block that computes") {
  TinyApp tiny(simulated(slow_rig()), "interrupt");
  auto prompt = prompt_of(true);
  const auto wanted = latent_of(tiny, prompt);
  auto replica = replica_on(tiny, prompt, "sim:1");
  REQUIRE(replica);
  prompt["keep"] = node("Keep", {{"value", {"5", 0}}});
  for (int stop_in : {0, 5}) {
    CAPTURE(stop_in);
    prompt["5"]["inputs"]["seed"] = 100 + stop_in;
    // The replica's thread is the one that is interrupted; the other has no block to itself.
    InterruptingSource own(*model_of(tiny, prompt)->weights, -1);
    InterruptingSource source(*replica->weights, stop_in);
    auto result = tiny.run(prompt);
    CHECK(result.run.status == graph::RunStatus::Interrupted);
    CHECK(source.begun == stop_in + 1);
    CHECK(own.begun - own.ended == 0);
    CHECK(own.begun < 4 * static_cast<int>(replica->weights->block_count()));
  }
  prompt["5"]["inputs"]["seed"] = 1;
  CHECK(at::equal(latent_of(tiny, prompt), wanted));
}

TEST_CASE("CFG split: what fails on one device ends the prompt with its error, the next one runs") {
  TinyApp tiny(simulated(slow_rig()), "errors");
  auto prompt = prompt_of(true);
  const auto wanted = latent_of(tiny, prompt);
  auto replica = replica_on(tiny, prompt, "sim:1");
  struct Failing final : weights::WeightSource {
    explicit Failing(streaming::StreamedModel& streamed) : model(streamed) {
      model.manifest().attach(this);
    }
    ~Failing() override { model.manifest().attach(&model); }
    weights::Tensors run(int, const weights::Tensors&, const weights::Body&) override {
      throw Error(ErrorKind::Internal, "sim:1", "has gone");
    }
    streaming::StreamedModel& model;
  };
  prompt["5"]["inputs"]["seed"] = 9;
  prompt["keep"] = node("Keep", {{"value", {"5", 0}}});
  {
    Failing failing(*replica->weights);
    auto result = tiny.run(prompt);
    CHECK(result.run.status != graph::RunStatus::Success);
    CHECK(result.error.find("sim:1: has gone") != std::string::npos);
  }
  prompt["5"]["inputs"]["seed"] = 1;
  CHECK(at::equal(latent_of(tiny, prompt), wanted));
  // Memory that runs out once on the second device makes room there.
  prompt["5"]["inputs"]["seed"] = 2;
  const auto other = latent_of(tiny, prompt);
  tiny.forget_results();
  sim::fail_allocation(1, 40);
  CHECK(at::equal(latent_of(tiny, prompt), other));
  CHECK(!sim::fault_pending(1));
}

TEST_CASE(
    "CFG split: each device has its own placement, resident what fits and the rest streamed") {
  const auto prompt = prompt_of(true);
  const auto wanted = on_one_device(prompt_of(false));
  auto options = simulated(slow_rig());
  std::int64_t whole = 0;
  {
    TinyApp tiny(options, "whole");
    whole = model_of(tiny, prompt)->weights->total_file_bytes();
  }
  options.budgets["sim:1"] = whole / 2 + (std::int64_t{12} << 20);
  TinyApp tiny(options, "tight");
  sim::reset_peak(1);
  CHECK(at::equal(latent_of(tiny, prompt), wanted));
  check_computes_too(tiny, prompt, "sim:1");
  CHECK(sim::memory(1).peak <= options.budgets["sim:1"]);
}
