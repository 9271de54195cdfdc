#include "distorch/media/gif_writer.h"

#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "distorch/base/error.h"
#include "distorch/media/palette.h"
#include "distorch/media/read_image.h"
#include "distorch/media/video_reader.h"
#include "tests/media/difference.h"

using namespace distorch;
using namespace distorch::media;
using test::mean_difference;

namespace {

/// `colours` of them in a picture of that many pixels, and another picture for each index.
Image striped(int width, int height, int colours, int index) {
  auto image = blank_image(width, height, 3);
  for (std::size_t i = 0; i < image.pixels.size() / 3; ++i) {
    auto colour = static_cast<int>(i) % colours;
    image.pixels[3 * i] = static_cast<std::uint8_t>(colour);
    image.pixels[3 * i + 1] = static_cast<std::uint8_t>(255 - colour);
    image.pixels[3 * i + 2] = static_cast<std::uint8_t>(20 * index);
  }
  return image;
}

Image ramp(int width, int height) {
  auto image = blank_image(width, height, 3);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) {
      auto* pixel = &image.pixels[static_cast<std::size_t>((y * width + x) * 3)];
      pixel[0] = static_cast<std::uint8_t>(x * 255 / width);
      pixel[1] = static_cast<std::uint8_t>(y * 255 / height);
      pixel[2] = static_cast<std::uint8_t>((x + y) * 255 / (width + height));
    }
  return image;
}

}  // namespace

TEST_CASE("GIF: frames of few colours come back bit for bit, with their own palettes or one") {
  std::vector<Image> frames;
  for (int i = 0; i < 5; ++i) frames.push_back(striped(17, 13, 50, i));
  for (bool one : {false, true}) {
    CAPTURE(one);
    auto bytes = encode_gif(frames, {.rate = {16, 1}, .loops = 3, .one_palette = one});
    CHECK(decode_frames(bytes, "gif") == frames);
    CHECK(bytes.find(std::string("NETSCAPE2.0\x03\x01\x03\x00", 15)) != std::string::npos);
    // 16 frames a second are 6 and 7 hundredths in turn: the whole stays in time.
    std::vector<double> times;
    VideoReader reader(bytes, "gif");
    reader.frames([&](Image, double seconds) {
      times.push_back(seconds);
      return true;
    });
    REQUIRE(times.size() == frames.size());
    for (std::size_t i = 0; i < times.size(); ++i)
      CHECK(std::abs(times[i] - static_cast<double>(i) / 16) < 0.006);
  }
}

TEST_CASE("GIF: many colours become the nearest of 256, spread over neighbours where asked") {
  auto picture = ramp(96, 64);
  auto palette = palette_of({&picture, 1});
  CHECK(palette.size() == 256);
  std::set<PaletteColour> different(palette.begin(), palette.end());
  CHECK(different.size() > 200);
  for (const auto& dither : dither_names()) {
    CAPTURE(dither);
    auto bytes = encode_gif({picture}, {.dither = dither});
    auto frames = decode_frames(bytes, "gif");
    REQUIRE(frames.size() == 1);
    CHECK(mean_difference(frames[0], picture) < 8);
  }
  CHECK_THROWS_WITH_AS(encode_gif({picture}, {.dither = "nothing"}),
                       doctest::Contains("'nothing' is none of"), Error);
}

TEST_CASE("GIF: what is no animation is refused") {
  CHECK_THROWS_WITH_AS(encode_gif({}, {}), doctest::Contains("at least one frame"), Error);
  CHECK_THROWS_WITH_AS(encode_gif({ramp(4, 4), ramp(4, 5)}, {}),
                       doctest::Contains("cannot be one animation"), Error);
}
