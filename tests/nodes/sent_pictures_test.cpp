#include <doctest/doctest.h>

#include "distorch/media/sent_picture.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// What a run shows while it runs.
struct Listener : graph::EventSink {
  std::vector<media::Image> pictures;
  std::vector<std::string> texts;
  std::vector<double> steps;
  void send(const graph::Event& event) override {
    if (auto* progress = std::get_if<graph::Progress>(&event)) steps.push_back(progress->value);
    auto* preview = std::get_if<graph::Preview>(&event);
    if (!preview) return;
    if (preview->image.is<media::SentPicture>())
      pictures.push_back(preview->image.as<media::SentPicture>().image);
    else
      texts.push_back(preview->image.as<Json>().get<std::string>());
  }
};

Json image_of(int batch) {
  return {{"class_type", "EmptyImage"},
          {"inputs", {{"width", 8}, {"height", 4}, {"batch_size", batch}, {"color", 0x1080f0}}}};
}

}  // namespace

TEST_CASE("SaveImageWebsocket sends every image of every prompt and writes no file") {
  TinyApp tiny;
  Json prompt = {{"1", image_of(2)},
                 {"2", {{"class_type", "SaveImageWebsocket"}, {"inputs", {{"images", {"1", 0}}}}}}};
  for (int time = 0; time < 2; ++time) {
    Listener listener;
    auto result = tiny.run(prompt, &listener);
    REQUIRE(result.run.status == graph::RunStatus::Success);
    CHECK(result.run.outputs.empty());
    CHECK(listener.steps == std::vector<double>{0, 1});
    REQUIRE(listener.pictures.size() == 2);
    const auto& picture = listener.pictures[1];
    CHECK(picture.width == 8);
    CHECK(picture.height == 4);
    CHECK(std::vector(picture.pixels.begin(), picture.pixels.begin() + 3) ==
          std::vector<std::uint8_t>{0x10, 0x80, 0xf0});
  }
  CHECK_FALSE(fs::exists(tiny.folder() / "output"));
}

TEST_CASE("nodes that save or show pass on what they got") {
  TinyApp tiny;
  auto passed = [&](const char* type, Json inputs) {
    Json prompt = {
        {"1", image_of(2)},
        {"2",
         {{"class_type", "SolidMask"}, {"inputs", {{"value", 1.0}, {"width", 8}, {"height", 4}}}}},
        {"3",
         {{"class_type", "EmptyLatentImage"},
          {"inputs", {{"width", 16}, {"height", 16}, {"batch_size", 1}}}}},
        {"4", {{"class_type", type}, {"inputs", std::move(inputs)}}}};
    return tiny.value_of(prompt, {"4", 0});
  };
  for (const char* type : {"SaveImage", "PreviewImage", "SaveAnimatedPNG"}) {
    Json inputs = {{"images", {"1", 0}}};
    if (std::string(type) != "PreviewImage") inputs["filename_prefix"] = "a";
    if (std::string(type) == "SaveAnimatedPNG")
      inputs.update({{"fps", 6.0}, {"compress_level", 1}});
    CHECK(passed(type, inputs).as<at::Tensor>().sizes() == at::IntArrayRef({2, 4, 8, 3}));
  }
  CHECK(passed("MaskPreview", {{"mask", {"2", 0}}}).as<at::Tensor>().sizes() ==
        at::IntArrayRef({1, 4, 8}));
  auto latent = passed("SaveLatent", {{"samples", {"3", 0}}, {"filename_prefix", "l"}});
  CHECK(latent.type() == "LATENT");
  CHECK(passed("PreviewAny", {{"source", {"3", 0}}}).as<Json>() == "LATENT [1, 4, 2, 2]");
}

TEST_CASE("batches are cut from their end, too, and sizes keep to steps") {
  TinyApp tiny;
  Json prompt = {{"1", image_of(5)}};
  auto cut = [&](int index, int length) {
    prompt["2"] = {{"class_type", "ImageFromBatch"},
                   {"inputs", {{"image", {"1", 0}}, {"batch_index", index}, {"length", length}}}};
    return tiny.value_of(prompt, {"2", 0}).as<at::Tensor>().size(0);
  };
  CHECK(cut(-2, 5) == 2);
  CHECK(cut(-9, 2) == 2);
  CHECK(cut(9, 2) == 1);
  auto sides = [&](Json more) {
    prompt["2"] = {
        {"class_type", "ImageScaleToTotalPixels"},
        {"inputs", {{"image", {"1", 0}}, {"upscale_method", "area"}, {"megapixels", 0.01}}}};
    prompt["2"]["inputs"].update(more);
    auto image = tiny.value_of(prompt, {"2", 0}).as<at::Tensor>();
    return std::pair(image.size(1), image.size(2));
  };
  CHECK(sides(Json::object()) == std::pair<std::int64_t, std::int64_t>(72, 145));
  CHECK(sides({{"resolution_steps", 16}}) == std::pair<std::int64_t, std::int64_t>(80, 144));
}

TEST_CASE("GetImageSize shows what it found") {
  TinyApp tiny;
  Json prompt = {{"1", image_of(3)},
                 {"2", {{"class_type", "GetImageSize"}, {"inputs", {{"image", {"1", 0}}}}}},
                 {"keep", {{"class_type", "Keep"}, {"inputs", {{"value", {"2", 2}}}}}}};
  Listener listener;
  REQUIRE(tiny.run(prompt, &listener).run.status == graph::RunStatus::Success);
  CHECK(listener.texts == std::vector<std::string>{"width: 8, height: 4\n batch size: 3"});
  CHECK(tiny.kept.at("keep").as<Json>() == 3);
}
