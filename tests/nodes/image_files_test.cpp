#include <doctest/doctest.h>

#include "distorch/base/atomic_file.h"
#include "distorch/media/read_image.h"
#include "distorch/media/workflow_texts.h"
#include "distorch/nodes/svg.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

const fs::path pictures = test::source_dir() / "tests/media/data";

struct Loaded {
  at::Tensor image, mask;
};

Loaded load(TinyApp& tiny, const std::string& name) {
  tiny.app.settings.input_folder = pictures;
  Json prompt{{"1", {{"class_type", "LoadImage"}, {"inputs", {{"image", name}}}}}};
  auto image = tiny.value_of(prompt, {"1", 0}).as<at::Tensor>();
  return {image, tiny.value_of(prompt, {"1", 1}).as<at::Tensor>()};
}

}  // namespace

TEST_CASE("LoadImage gives every frame, with its alpha as a mask") {
  TinyApp tiny;
  for (const char* name : {"cleared_see_through.gif", "over.apng.png", "frames.webp"}) {
    CAPTURE(name);
    auto frames = media::read_frames(pictures / name);
    auto [image, mask] = load(tiny, name);
    auto count = static_cast<std::int64_t>(frames.size());
    REQUIRE(count >= 4);
    REQUIRE(image.sizes() == at::IntArrayRef({count, frames[0].height, frames[0].width, 3}));
    REQUIRE(mask.sizes() == at::IntArrayRef({count, frames[0].height, frames[0].width}));
    for (std::int64_t i = 0; i < count; ++i) {
      const auto& frame = frames[static_cast<std::size_t>(i)];
      auto values = at::tensor(media::to_floats(frame)).view({frame.height, frame.width, 4});
      CHECK(at::equal(image[i], values.narrow(2, 0, 3)));
      CHECK(at::equal(mask[i], 1.0 - values.select(2, 3)));
    }
  }
}

TEST_CASE("LoadImage gives empty masks where no frame has alpha") {
  TinyApp tiny;
  auto pages = load(tiny, "pages.tif");
  CHECK(pages.image.size(0) == 3);  // the page of another size is left out
  CHECK(pages.mask.sizes() == at::IntArrayRef({3, 64, 64}));
  CHECK(pages.mask.count_nonzero().item<int>() == 0);
  auto still = load(tiny, "rgb.bmp");
  CHECK(still.image.size(0) == 1);
  CHECK(still.mask.sizes() == at::IntArrayRef({1, 64, 64}));
}

TEST_CASE("LoadImageMask gives the mask of the first frame") {
  TinyApp tiny;
  tiny.app.settings.input_folder = pictures;
  Json prompt{{"1",
               {{"class_type", "LoadImageMask"},
                {"inputs", {{"image", "frames.webp"}, {"channel", "alpha"}}}}}};
  auto mask = tiny.value_of(prompt, {"1", 0}).as<at::Tensor>();
  auto frame = media::read_image(pictures / "frames.webp");
  auto values = at::tensor(media::to_floats(frame)).view({frame.height, frame.width, 4});
  CHECK(at::equal(mask, (1.0 - values.select(2, 3)).unsqueeze(0)));
}

TEST_CASE("animations carry their frames, their speed and their workflow") {
  TinyApp tiny({}, "animations");
  Json prompt = {
      {"1",
       {{"class_type", "EmptyImage"},
        {"inputs", {{"width", 12}, {"height", 8}, {"batch_size", 2}, {"color", 0x3380C8}}}}},
      {"2",
       {{"class_type", "EmptyImage"},
        {"inputs", {{"width", 12}, {"height", 8}, {"batch_size", 1}, {"color", 0xC03010}}}}},
      {"3",
       {{"class_type", "ImageBatch"}, {"inputs", {{"image1", {"1", 0}}, {"image2", {"2", 0}}}}}},
      {"4",
       {{"class_type", "SaveAnimatedPNG"},
        {"inputs",
         {{"images", {"3", 0}},
          {"filename_prefix", "moving"},
          {"fps", 4.0},
          {"compress_level", 4}}}}},
      {"5",
       {{"class_type", "SaveAnimatedWEBP"},
        {"inputs",
         {{"images", {"3", 0}},
          {"filename_prefix", "round"},
          {"fps", 4.0},
          {"lossless", true},
          {"quality", 80},
          {"method", "fastest"}}}}}};
  tiny.run_well(prompt);
  for (const char* name : {"moving_00001_.png", "round_00001_.webp"}) {
    INFO(name);
    auto path = tiny.folder() / "output" / name;
    auto frames = media::read_frames(path);
    REQUIRE(frames.size() >= 2);
    CHECK(frames.front().pixels[0] == 0x33);
    CHECK(frames.back().pixels[0] == 0xC0);
    auto texts = media::workflow_texts(path);
    CHECK(Json::parse(texts.prompt.value())["4"]["class_type"] == "SaveAnimatedPNG");
    CHECK(Json::parse(texts.workflow.value())["note"] == "gr\u00fc\u00df");
  }
}

TEST_CASE("drawings are saved with their workflow, one file each") {
  TinyApp tiny({}, "drawings");
  tiny.catalog.add({.name = "TinyDrawings",
                    .inputs = {graph::text("note")},
                    .outputs = {"SVG"},
                    .run = [](graph::Call& call) {
                      nodes::SvgDrawings drawings = {"<svg width='4'><g/></svg>", "no drawing"};
                      call.out(0, graph::Value::of("SVG", drawings));
                    }});
  Json prompt = {{"1", {{"class_type", "TinyDrawings"}, {"inputs", {{"note", "ends ]]> here"}}}}},
                 {"2",
                  {{"class_type", "SaveSVGNode"},
                   {"inputs", {{"svg", {"1", 0}}, {"filename_prefix", "lines_%batch_num%"}}}}}};
  tiny.run_well(prompt);
  auto output = tiny.folder() / "output";
  auto text = read_file(output / "lines_0_00001_.svg");
  CHECK(text.starts_with("<svg width='4'>\n  <metadata>"));
  CHECK(text.ends_with("</metadata>\n<g/></svg>"));
  auto begin = text.find("<![CDATA[") + 9, end = text.find("]]>");
  auto metadata = Json::parse(text.substr(begin, end - begin));
  CHECK(metadata["prompt"] == prompt);
  CHECK(metadata["workflow"]["note"] == "gr\u00fc\u00df");
  CHECK(read_file(output / "lines_1_00001_.svg") == "no drawing");
}
