#include <doctest/doctest.h>

#include "distorch/media/read_image.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

const fs::path pictures = fs::path(DISTORCH_SOURCE_DIR) / "tests/media/data";

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
