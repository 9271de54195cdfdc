#include <c10/core/InferenceMode.h>

#include <fstream>
#include <limits>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/media/image.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Json with_picture(Json prompt) {
  prompt["6"] = {{"class_type", "VAEDecode"},
                 {"inputs", {{"samples", {"5", 0}}, {"vae", {"1", 2}}}}};
  prompt["7"] = {{"class_type", "SaveImage"},
                 {"inputs", {{"images", {"6", 0}}, {"filename_prefix", "x"}}}};
  return prompt;
}

void give_latent(TinyApp& tiny, const at::Tensor& samples) {
  tiny.catalog.add(
      {.name = "GivenLatent", .outputs = {"LATENT"}, .run = [samples](graph::Call& call) {
         call.out(0, graph::Value::of("LATENT", sampling::Latent{samples, {}, {}}));
       }});
}

bool nothing_in(const fs::path& folder) { return !fs::exists(folder) || fs::is_empty(folder); }

/// Parts of a tiny checkpoint as a file of its own below the application's folder.
void write_checkpoint(TinyApp& tiny, const std::string& name,
                      const std::function<bool(const std::string&)>& wanted) {
  auto tensors = tiny_tensors({"unet_sd1", "vae", "clip_l"});
  std::erase_if(tensors, [&](const auto& entry) { return !wanted(entry.first); });
  fs::create_directories(tiny.folder() / "checkpoints");
  write_tensors(tiny.folder() / "checkpoints" / name, tensors);
  tiny.app.folders.add("checkpoints", tiny.folder() / "checkpoints");
}

}  // namespace

TEST_CASE("a missing model file is refused before anything runs, with near names and the folder") {
  TinyApp tiny;
  auto prompt = sampling_prompt("tinysd1.safetensors");
  prompt["5"]["inputs"]["model"] = {"1", 0};
  auto result = tiny.run(with_picture(prompt));
  REQUIRE_FALSE(result.validation.clean());
  auto line = result.validation.lines().at(0);
  CHECK(contains(line, "node 1 (CheckpointLoaderSimple)"));
  CHECK(contains(line, "'tiny_sd1.safetensors'"));
  CHECK(contains(line, (tiny_models() / "checkpoints").string()));
}

TEST_CASE("a missing picture is refused before anything runs, with near names") {
  TinyApp tiny;
  auto result =
      tiny.run({{"1", {{"class_type", "LoadImage"}, {"inputs", {{"image", "foto.png"}}}}},
                {"2", {{"class_type", "PreviewImage"}, {"inputs", {{"images", {"1", 0}}}}}}});
  REQUIRE_FALSE(result.validation.clean());
  CHECK(contains(result.validation.lines().at(0), "'photo.png'"));
  result = tiny.run({{"1", {{"class_type", "LoadImage"}, {"inputs", {{"image", "../README.md"}}}}},
                     {"2", {{"class_type", "PreviewImage"}, {"inputs", {{"images", {"1", 0}}}}}}});
  REQUIRE_FALSE(result.validation.clean());
  CHECK(contains(result.validation.lines().at(0), "leads out of the folder"));
}

TEST_CASE("a NaN latent ends the run, names the node and leaves no picture") {
  TinyApp tiny;
  give_latent(tiny, at::full({1, 4, 8, 8}, std::numeric_limits<float>::quiet_NaN()));
  auto prompt = with_picture(sampling_prompt());
  prompt["4"] = {{"class_type", "GivenLatent"}, {"inputs", Json::object()}};
  auto result = tiny.run(prompt);
  CHECK(result.run.status == graph::RunStatus::Error);
  CHECK(contains(result.error, "node 5 (KSampler)"));
  CHECK(contains(result.error, "NaN at step 1 of 4"));
  CHECK(nothing_in(tiny.folder() / "output"));
}

TEST_CASE("an interrupt in the middle of sampling stops there and leaves nothing behind") {
  TinyApp tiny;
  struct Stopper : graph::EventSink {
    int steps = 0;
    void send(const graph::Event& event) override {
      if (std::holds_alternative<graph::Progress>(event) && ++steps == 2)
        current_run()->interrupt();
    }
  } stopper;
  auto result = tiny.run(with_picture(sampling_prompt()), &stopper);
  CHECK(result.run.status == graph::RunStatus::Interrupted);
  CHECK(stopper.steps < 4);
  CHECK(nothing_in(tiny.folder() / "output"));
  // no output node: the application goes on working
  CHECK(tiny.run(sampling_prompt()).validation.clean() == false);
  tiny.run_well(with_picture(sampling_prompt()));
}

TEST_CASE("sampling reports every step and shows previews of an eighth of the size") {
  TinyApp tiny;
  struct Listener : graph::EventSink {
    std::vector<double> values;
    std::vector<media::Image> previews;
    void send(const graph::Event& event) override {
      if (auto* progress = std::get_if<graph::Progress>(&event)) values.push_back(progress->value);
      if (auto* preview = std::get_if<graph::Preview>(&event))
        previews.push_back(preview->image.as<media::Image>());
    }
  } listener;
  auto prompt = sampling_prompt();
  prompt["keep"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"5", 0}}}}};
  auto result = tiny.run(prompt, &listener);
  REQUIRE(result.run.status == graph::RunStatus::Success);
  CHECK(listener.values == std::vector<double>{1, 2, 3, 4});
  REQUIRE_FALSE(listener.previews.empty());
  CHECK(listener.previews[0].width == 8);
  CHECK(listener.previews[0].height == 8);
  CHECK(listener.previews[0].channels == 3);
}

TEST_CASE("a checkpoint without VAE or text encoder works for what it holds") {
  TinyApp tiny;
  write_checkpoint(tiny, "unet_only.safetensors", [](const std::string& name) {
    return name.starts_with("model.diffusion_model.");
  });
  auto result = tiny.run(with_picture(sampling_prompt("unet_only.safetensors")));
  CHECK(contains(result.error, "holds no text encoder"));
  CHECK(contains(result.error, "(CLIPTextEncode)"));

  auto prompt = with_picture(sampling_prompt("unet_only.safetensors"));
  prompt["8"] = {{"class_type", "CheckpointLoaderSimple"},
                 {"inputs", {{"ckpt_name", "tiny_sd1.safetensors"}}}};
  for (const char* node : {"2", "3"}) prompt[node]["inputs"]["clip"] = {"8", 1};
  result = tiny.run(prompt);
  CHECK(contains(result.error, "holds no autoencoder"));
  prompt["6"]["inputs"]["vae"] = {"8", 2};
  tiny.run_well(prompt);
}

TEST_CASE("a checkpoint that lacks weights names them all at once") {
  TinyApp tiny;
  write_checkpoint(tiny, "holes.safetensors", [](const std::string& name) {
    return !name.ends_with("middle_block.0.in_layers.2.bias") &&
           !name.ends_with("output_blocks.3.0.out_layers.0.weight");
  });
  auto result = tiny.run(with_picture(sampling_prompt("holes.safetensors")));
  CHECK(contains(result.error, "holes.safetensors"));
  CHECK(contains(result.error, "'middle_block.0.in_layers.2.bias' is missing"));
  CHECK(contains(result.error, "'output_blocks.3.0.out_layers.0.weight' is missing"));
}

TEST_CASE("a truncated checkpoint is refused by name") {
  TinyApp tiny;
  fs::create_directories(tiny.folder() / "checkpoints");
  auto cut = tiny.folder() / "checkpoints" / "cut.safetensors";
  fs::copy_file(tiny_models() / "checkpoints" / "tiny_sd1.safetensors", cut);
  fs::resize_file(cut, fs::file_size(cut) / 2);
  tiny.app.folders.add("checkpoints", tiny.folder() / "checkpoints");
  auto result = tiny.run(with_picture(sampling_prompt("cut.safetensors")));
  CHECK(result.run.status == graph::RunStatus::Error);
  CHECK(contains(result.error, "cut.safetensors"));
}

TEST_CASE("a text encoder of another family is told from the model") {
  TinyApp tiny;
  auto prompt = with_picture(sampling_prompt());
  prompt["8"] = {{"class_type", "CheckpointLoaderSimple"},
                 {"inputs", {{"ckpt_name", "tiny_sd2.safetensors"}}}};
  prompt["2"]["inputs"]["clip"] = {"8", 1};
  auto result = tiny.run(prompt);
  CHECK(contains(result.error,
                 "a text conditioning ('context') of [batch, tokens, 64], got [1, 77, 128]"));
}

TEST_CASE("a checkpoint that was replaced is opened again") {
  TinyApp tiny;
  write_checkpoint(tiny, "changing.safetensors", [](const std::string&) { return true; });
  auto sample = [&] {
    return tiny.value_of(sampling_prompt("changing.safetensors"), {"5", 0})
        .as<sampling::Latent>()
        .samples;
  };
  auto first = sample();
  CHECK(at::equal(sample(), first));
  auto tensors = tiny_tensors({"unet_sd1", "vae", "clip_l"});
  tensors["model.diffusion_model.out.2.bias"].add_(1.0);
  auto folder = tiny.folder() / "checkpoints";
  write_tensors(folder / "new.safetensors", tensors);
  fs::rename(folder / "new.safetensors", folder / "changing.safetensors");
  CHECK_FALSE(at::equal(sample(), first));
}

TEST_CASE("the same file opened by two nodes is one model") {
  TinyApp tiny;
  auto loader = [](const char* name) {
    return Json{{"1",
                 {{"class_type", "CheckpointLoaderSimpleMultiGPU"},
                  {"inputs", {{"ckpt_name", name}, {"device", "cpu"}}}}}};
  };
  auto prompt = loader("tiny_sd1.safetensors");
  prompt["2"] = {{"class_type", "CheckpointLoaderSimple"},
                 {"inputs", {{"ckpt_name", "tiny_sd1.safetensors"}}}};
  prompt["a"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"1", 0}}}}};
  prompt["b"] = {{"class_type", "Keep"}, {"inputs", {{"value", {"2", 0}}}}};
  tiny.run_well(prompt);
  CHECK(tiny.kept.at("a").as<nodes::Model>().loaded == tiny.kept.at("b").as<nodes::Model>().loaded);
}

TEST_CASE("an absent device is replaced, or refused where devices are strict") {
  auto prompt = with_picture(sampling_prompt());
  prompt["1"]["class_type"] = "CheckpointLoaderSimpleMultiGPU";
  prompt["1"]["inputs"]["device"] = "cuda:7";
  TinyApp tiny;
  tiny.run_well(prompt);
  streaming::EngineOptions strict;
  strict.strict_devices = true;
  TinyApp other(strict, "strict");
  auto result = other.run(prompt);
  CHECK(contains(result.error, "cuda:7"));
}

TEST_CASE("nodes run in torch's inference mode, and only they do") {
  TinyApp tiny;
  bool inference = false;
  tiny.catalog.add({.name = "Look", .output_node = true, .run = [&](graph::Call&) {
                      inference = c10::InferenceMode::is_enabled();
                    }});
  tiny.run_well({{"1", {{"class_type", "Look"}, {"inputs", Json::object()}}}});
  CHECK(inference);
  CHECK_FALSE(c10::InferenceMode::is_enabled());
}
