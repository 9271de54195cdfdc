#include "tests/nodes/simulated_device.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

/// Pictures that are enlarged where memory is short.
namespace {

Json enlarging(int side) {
  fs::create_directories(tiny_models() / "upscale_models");
  write_tensors(tiny_models() / "upscale_models" / "short.safetensors",
                tiny_tensors({"upscale_compact"}));
  return {
      {"1", {{"class_type", "LoadImage"}, {"inputs", {{"image", "photo.png"}}}}},
      {"4",
       {{"class_type", "ImageScale"},
        {"inputs",
         {{"image", {"1", 0}},
          {"upscale_method", "bilinear"},
          {"width", side},
          {"height", side},
          {"crop", "disabled"}}}}},
      {"2",
       {{"class_type", "UpscaleModelLoader"}, {"inputs", {{"model_name", "short.safetensors"}}}}},
      {"3",
       {{"class_type", "ImageUpscaleWithModel"},
        {"inputs", {{"upscale_model", {"2", 0}}, {"image", {"4", 0}}}}}},
      {"keep", {{"class_type", "Keep"}, {"inputs", {{"value", {"3", 0}}}}}}};
}

/// How many tiles a run had, by its last progress.
struct Tiles : graph::EventSink {
  void send(const graph::Event& event) override {
    const auto* progress = std::get_if<graph::Progress>(&event);
    if (progress && progress->node == "3") total = progress->max;
  }
  double total = 0;
};

}  // namespace

TEST_CASE("a picture too large for memory is enlarged in ever smaller tiles") {
  constexpr int side = 400;
  const auto prompt = enlarging(side);
  at::Tensor whole;
  {
    TinyApp tiny(on_a_simulated_device(std::int64_t{400} << 20), "upscale_whole");
    Tiles tiles;
    REQUIRE(tiny.run(prompt, &tiles).run.status == graph::RunStatus::Success);
    CHECK(tiles.total == 1);
    whole = tiny.kept.at("keep").as<at::Tensor>();
    CHECK(sim::memory(0).peak > std::int64_t{60} << 20);
  }
  constexpr std::int64_t budget = std::int64_t{56} << 20;
  TinyApp tiny(on_a_simulated_device(budget), "upscale_tiles");
  sim::reset_peak(0);
  Tiles tiles;
  auto result = tiny.run(prompt, &tiles);
  CAPTURE(result.error);
  REQUIRE(result.run.status == graph::RunStatus::Success);
  CHECK(tiles.total > 1);
  CHECK(sim::memory(0).peak <= budget);
  auto parts = tiny.kept.at("keep").as<at::Tensor>();
  REQUIRE(parts.sizes() == whole.sizes());
  // Away from the seams, which are blended, the same picture.
  auto corner = [](const at::Tensor& image) { return image.narrow(1, 0, 400).narrow(2, 0, 400); };
  CHECK((corner(parts) - corner(whole)).abs().max().item<double>() < 1e-4);
  CHECK((parts - whole).abs().mean().item<double>() < 0.02);
}

TEST_CASE("where even the smallest tile does not fit, that is said, and nothing stays behind") {
  TinyApp tiny(on_a_simulated_device(std::int64_t{1} << 20), "upscale_none");
  auto result = tiny.run(enlarging(300));
  CHECK(result.run.status == graph::RunStatus::Error);
  CHECK(result.error.find("sim:0") != std::string::npos);
  tiny.forget_results();
  tiny.app.engine.unload_all();
  CHECK(sim::memory(0).in_use == 0);
}
