#include "distorch/nodes/control.h"

#include <fmt/format.h>

#include "distorch/device/sim/sim.h"
#include "distorch/streaming/trace.h"
#include "tests/nodes/tiny_controls.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;
using nodes::ControlUse;

namespace {

/// A tiny checkpoint, two prompts that one ControlNet (node 5) steers, three steps; the result in
/// node 8.
Json steered_prompt(const std::string& checkpoint = "tiny_sd1.safetensors",
                    const std::string& control = "control_sd1.safetensors") {
  Json prompt;
  prompt["1"] = node("CheckpointLoaderSimple", {{"ckpt_name", checkpoint}});
  prompt["2"] = node("CLIPTextEncode", {{"text", "a cat"}, {"clip", {"1", 1}}});
  prompt["3"] = node("CLIPTextEncode", {{"text", ""}, {"clip", {"1", 1}}});
  prompt["4"] = node("EmptyLatentImage", {{"width", 64}, {"height", 64}, {"batch_size", 1}});
  prompt["5"] = node("ControlNetLoader", {{"control_net_name", control}});
  prompt["6"] = node("LoadImage", {{"image", "photo.png"}});
  prompt["7"] = node("ControlNetApplyAdvanced", {{"positive", {"2", 0}},
                                                 {"negative", {"3", 0}},
                                                 {"control_net", {"5", 0}},
                                                 {"image", {"6", 0}},
                                                 {"strength", 0.7},
                                                 {"start_percent", 0.0},
                                                 {"end_percent", 1.0}});
  prompt["8"] = node("KSampler", {{"model", {"1", 0}},
                                  {"positive", {"7", 0}},
                                  {"negative", {"7", 1}},
                                  {"latent_image", {"4", 0}},
                                  {"seed", 1},
                                  {"steps", 3},
                                  {"cfg", 2.0},
                                  {"sampler_name", "euler"},
                                  {"scheduler", "normal"},
                                  {"denoise", 1.0}});
  return prompt;
}

/// The prompt with the ControlNet's residuals twice as strong behind another use of it.
Json chained(Json prompt) {
  auto second = prompt["7"];
  second["inputs"]["positive"] = {"7", 0};
  second["inputs"]["negative"] = {"7", 1};
  second["inputs"]["strength"] = 0.3;
  prompt["9"] = second;
  prompt["8"]["inputs"]["positive"] = {"9", 0};
  prompt["8"]["inputs"]["negative"] = {"9", 1};
  return prompt;
}

at::Tensor latent_of(TinyApp& tiny, const Json& prompt) {
  return tiny.value_of(prompt, {"8", 0}).as<sampling::Latent>().samples;
}

std::string error_of(TinyApp& tiny, Json prompt) {
  prompt["keep"] = node("Keep", {{"value", {"8", 0}}});
  auto result = tiny.run(prompt);
  REQUIRE(result.validation.clean());
  CHECK(result.run.status != graph::RunStatus::Success);
  return result.error;
}

streaming::EngineOptions on(const std::string& device, std::int64_t budget_bytes = 0) {
  streaming::EngineOptions options;
  options.default_device = device;
  if (budget_bytes > 0) options.budgets[device] = budget_bytes;
  options.rig = small_rig();
  return options;
}

at::Tensor on_the_cpu(const Json& prompt) {
  TinyApp tiny;
  return latent_of(tiny, prompt);
}

}  // namespace

TEST_CASE("ControlNet and UNet stream together under one budget") {
  write_tiny_controls();
  sim::install(small_rig(), sim::Mode::Exec);
  auto prompt = steered_prompt();
  auto wanted = on_the_cpu(prompt);
  std::int64_t whole = 0, largest = 0;
  {
    TinyApp tiny(on("sim:0"));
    for (const auto& [id, slot] : {std::pair("1", 0), std::pair("5", 0)}) {
      auto value = tiny.value_of(prompt, {id, slot});
      const auto& weights = id == std::string("1") ? *value.as<nodes::Model>().loaded->weights
                                                   : *value.as<nodes::ControlNet>().loaded->weights;
      whole += weights.total_file_bytes();
      for (std::size_t block = 0; block < weights.block_count(); ++block)
        largest = std::max(largest, weights.file_bytes(static_cast<int>(block)));
    }
  }
  MESSAGE("weights " << whole << ", largest block " << largest);
  for (auto budget : {2 * whole, 3 * whole / 4, whole / 2}) {
    CAPTURE(budget);
    TinyApp tiny(on("sim:0", budget));
    sim::reset_peak(0);
    CHECK(difference(latent_of(tiny, prompt), wanted) < 1e-4);
    CHECK(sim::memory(0).peak <= budget);
    // Another prompt in between, and back.
    auto other = latent_of(tiny, chained(prompt));
    CHECK(difference(other, wanted) > 1e-3);
    CHECK(difference(latent_of(tiny, prompt), wanted) < 1e-4);
    CHECK(sim::memory(0).peak <= budget);
  }
}

TEST_CASE("ControlNet: cond and uncond in one pass where they share it, its hint encoded once") {
  write_tiny_controls();
  TinyApp tiny;
  auto runs = [&](const Json& prompt, const std::string& block) {
    streaming::Trace trace;
    latent_of(tiny, prompt);
    auto events = Json::parse(trace.to_json());
    if (events.is_object()) events = events.at("traceEvents");
    return std::count_if(events.begin(), events.end(), [&](const Json& event) {
      return event.value("name", "") == block && event.value("ph", "") == "X";
    });
  };
  auto prompt = steered_prompt();
  CHECK(runs(prompt, "zero_convs") == 3);

  auto apart = prompt;
  apart["9"] = prompt["7"];
  apart["9"]["inputs"]["strength"] = 0.2;
  apart["8"]["inputs"]["negative"] = {"9", 1};
  CHECK(runs(apart, "zero_convs") == 6);
  apart["8"]["inputs"]["seed"] = 2;
  CHECK(runs(apart, "input_hint_block") == 1);

  // Two uses that say the same are one.
  apart["9"]["inputs"]["strength"] = 0.7;
  CHECK(runs(apart, "zero_convs") == 3);

  auto early = prompt;
  early["7"]["inputs"]["end_percent"] = 0.2;
  CHECK(runs(early, "zero_convs") == 1);
  CHECK(runs(chained(prompt), "zero_convs") == 6);
}

TEST_CASE("ControlNet on a device of its own, and spread over several, gives the same picture") {
  write_tiny_controls();
  sim::install(small_rig(), sim::Mode::Exec);
  auto wanted = on_the_cpu(steered_prompt());
  auto net_of = [](TinyApp& tiny, const Json& prompt) {
    return tiny.value_of(prompt, {"5", 0}).as<nodes::ControlNet>().loaded;
  };

  auto apart = steered_prompt();
  apart["5"] = node("ControlNetLoaderMultiGPU",
                    {{"control_net_name", "control_sd1.safetensors"}, {"device", "sim:1"}});
  TinyApp tiny(on("sim:0"));
  CHECK(difference(latent_of(tiny, apart), wanted) < 1e-4);
  CHECK(net_of(tiny, apart)->weights->options().compute == "sim:1");
  CHECK(net_of(tiny, apart)->weights->device_bytes("sim:1") > 0);
  CHECK(net_of(tiny, apart)->weights->device_bytes("sim:0") == 0);

  auto spread = steered_prompt();
  spread["5"] =
      node("ControlNetLoaderDisTorch2MultiGPU", {{"control_net_name", "control_sd1.safetensors"},
                                                 {"compute_device", "sim:0"},
                                                 {"virtual_vram_gb", 0.0},
                                                 {"donor_device", "cpu"},
                                                 {"expert_mode_allocations", "sim:0,50%;cpu,50%"},
                                                 {"eject_models", false}});
  CHECK(difference(latent_of(tiny, spread), wanted) < 1e-4);
  const auto& weights = *net_of(tiny, spread)->weights;
  CHECK(weights.device_bytes("sim:0") < weights.total_file_bytes());
  CHECK(weights.loaded());
}

TEST_CASE("ControlNets are planned with their UNet, residuals counted among its inputs") {
  write_tiny_controls();
  auto options = on("sim:0");
  options.plan_only = true;
  TinyApp tiny(options);
  latent_of(tiny, steered_prompt());
  std::vector<std::string> names;
  for (const auto& run : tiny.app.engine.planned_runs()) names.push_back(run.model);
  CHECK(std::count(names.begin(), names.end(), "tiny_sd1") == 1);
  CHECK(std::count(names.begin(), names.end(), "control_sd1 (ControlNet)") == 1);
}

TEST_CASE("ControlNet of another kind of model: an error that says so, and the next prompt runs") {
  write_tiny_controls();
  TinyApp tiny;
  auto wide = error_of(tiny, steered_prompt("tiny_sd2.safetensors", "control_sd1.safetensors"));
  CHECK(wide ==
        "ControlNet: takes a text conditioning ('context') of [batch, tokens, 64], got [2, 77, "
        "128]: it belongs to another model");
  auto narrow = error_of(tiny, steered_prompt("tiny_sd2.safetensors", "adapter_sd1.safetensors"));
  CHECK(narrow.find("takes a ControlNet output ('control_input.2') of [batch, 64, cells], got [1, "
                    "32, 8, 8]: it belongs to another model") != std::string::npos);
  CHECK(difference(latent_of(tiny, steered_prompt()), on_the_cpu(steered_prompt())) == 0);
}

TEST_CASE("ControlNet files: missing ones, others, and those that need the model they change") {
  write_tiny_controls();
  TinyApp tiny;
  auto prompt = steered_prompt("tiny_sd1.safetensors", "control_sd3.safetensors");
  prompt["keep"] = node("Keep", {{"value", {"8", 0}}});
  auto missing = tiny.run(prompt);
  REQUIRE_FALSE(missing.validation.clean());
  CHECK(missing.validation.lines().at(0).find("'control_sd1.safetensors'") != std::string::npos);

  auto folder = tiny.folder() / "controls";
  fs::create_directories(folder);
  fs::copy(tiny_models() / "checkpoints" / "tiny_sd1.safetensors", folder / "other.safetensors");
  tiny.app.folders.add("controlnet", folder);
  CHECK(error_of(tiny, steered_prompt("tiny_sd1.safetensors", "other.safetensors"))
            .find("other.safetensors: holds no ControlNet or T2I-adapter that is known") !=
        std::string::npos);
  CHECK(error_of(tiny, steered_prompt("tiny_sd1.safetensors", "control_difference.safetensors"))
            .find("load it with DiffControlNetLoader") != std::string::npos);
}

TEST_CASE("a ControlNet for many kinds is told which by name") {
  write_tiny_controls();
  TinyApp tiny;
  auto type_of = [&](const std::string& name) {
    auto prompt = steered_prompt();
    prompt["9"] = node("SetUnionControlNetType", {{"control_net", {"5", 0}}, {"type", name}});
    return tiny.value_of(prompt, {"9", 0}).as<nodes::ControlNet>().type;
  };
  CHECK(type_of("openpose") == 0);
  CHECK(type_of("repaint") == 7);
  CHECK_FALSE(type_of("auto").has_value());
}

TEST_CASE("uses of a ControlNet are equal where they say the same") {
  ControlUse first;
  first.image = at::zeros({1, 8, 8, 3});
  first.strength = 0.5;
  ControlUse second = first;
  CHECK(first.equals(second));
  second.image = first.image.clone();
  CHECK_FALSE(first.equals(second));
  second = first;
  second.end_percent = 0.9;
  CHECK_FALSE(first.equals(second));
  second = first;
  second.net.type = 3;
  CHECK_FALSE(first.equals(second));
  second = first;
  second.previous = std::make_shared<ControlUse>(first);
  CHECK_FALSE(first.equals(second));
  first.previous = std::make_shared<ControlUse>(*second.previous);
  CHECK(first.equals(second));
  auto other = std::make_shared<ControlUse>(*second.previous);
  other->strength = 0.6;
  first.previous = other;
  CHECK_FALSE(first.equals(second));
}
