#include "distorch/media/read_image.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/webp.h"
#include "distorch/media/workflow_texts.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::media;

namespace {

const std::filesystem::path data = test::source_dir() / "tests/media/data";

std::string refusal(std::string_view bytes) {
  try {
    decode_image(bytes, "x");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::Format);
    CHECK(e.where() == "x");
    return e.sentence();
  }
  return "accepted";
}

int largest_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  int largest = a.size() == b.size() ? 0 : 256;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(int{a[i]} - int{b[i]}));
  return largest;
}

/// A smooth picture, which lossy formats keep well.
Image slope(int channels) {
  auto image = blank_image(40, 24, channels);
  for (int y = 0; y < 24; ++y)
    for (int x = 0; x < 40; ++x)
      for (int c = 0; c < channels; ++c)
        image.pixels[static_cast<std::size_t>((y * 40 + x) * channels + c)] =
            static_cast<std::uint8_t>(x * 4 + y * 3 + c * 10);
  return image;
}

}  // namespace

TEST_CASE("read_image: the same pixels as Pillow through ComfyUI's loader") {
  auto expected = nlohmann::json::parse(read_file(data / "pictures.json"));
  CHECK(expected.size() >= 28);
  for (const auto& [name, want] : expected.items()) {
    CAPTURE(name);
    auto image = read_image(data / name);
    CHECK(image.width == want["width"]);
    CHECK(image.height == want["height"]);
    CHECK(image.channels == want["channels"]);
    auto hex = want["pixels"].get<std::string>();
    std::vector<std::uint8_t> pixels;
    for (std::size_t i = 0; i < hex.size(); i += 2)
      pixels.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    CHECK(largest_difference(image.pixels, pixels) <= want["tolerance"].get<int>());
  }
}

TEST_CASE("read_image: files that are no pictures, or broken ones") {
  CHECK(refusal("") == "is empty");
  CHECK(refusal("hello") ==
        "is no picture of a known format (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF)");
  CHECK_THROWS_AS(read_image(data / "nothing.png"), Error);
  for (const char* name : {"rgb.png", "interlaced.png", "palette8.png", "smooth.jpg",
                           "progressive.jpg", "lossless.webp", "lossy.webp"}) {
    CAPTURE(name);
    auto bytes = read_file(data / name);
    for (std::size_t size = 3; size < bytes.size() - 20; size += 7) {
      auto said = refusal(std::string_view(bytes).substr(0, size));
      CHECK(said != "accepted");
    }
    // Flipped bytes must not crash; many of them still decode.
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      auto bent = bytes;
      bent[i] = static_cast<char>(~bent[i]);
      try {
        decode_image(bent, "bent");
      } catch (const Error&) {
      }
    }
  }
}

TEST_CASE("jpeg and webp: written for previews, read back nearly the same") {
  for (int channels : {1, 3, 4}) {
    CAPTURE(channels);
    auto image = slope(channels);
    auto jpeg = encode_jpeg(image, 95);
    CHECK(is_jpeg(jpeg));
    CHECK(largest_difference(decode_jpeg(jpeg, "j").pixels, to_rgb(image).pixels) <= 8);
    CHECK(encode_jpeg(image, 20).size() < jpeg.size());
    auto webp = encode_webp(image, 95);
    CHECK(is_webp(webp));
    auto back = decode_webp(webp, "w");
    CHECK(back.channels == (channels == 4 ? 4 : 3));
    CHECK(largest_difference(to_rgb(back).pixels, to_rgb(image).pixels) <= 24);
  }
}

TEST_CASE("image: floats to 8 bits are clipped and truncated, as ComfyUI saves") {
  float nan = std::nanf("");
  std::vector<float> values = {0.0f, 1.0f,   0.5f,          -3.0f,          7.0f,
                               nan,  0.999f, 1.0f / 255.0f, 254.9f / 255.0f};
  auto image = from_floats(values, 3, 1, 3);
  CHECK(image.pixels == std::vector<std::uint8_t>{0, 255, 127, 0, 255, 0, 254, 1, 254});
  CHECK(to_floats(image)[2] == doctest::Approx(127.0 / 255));
  CHECK_THROWS_AS(from_floats(values, 2, 2, 3), Error);
  CHECK_THROWS_AS(blank_image(0, 1, 3), Error);
  CHECK_THROWS_AS(blank_image(1, 1, 2), Error);
  CHECK_THROWS_AS(blank_image(1 << 20, 1 << 20, 3), Error);
  // Every 8-bit value survives the way through floats.
  Image ramp = blank_image(256, 1, 1);
  for (int i = 0; i < 256; ++i)
    ramp.pixels[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(i);
  CHECK(from_floats(to_floats(ramp), 256, 1, 1) == ramp);
}

TEST_CASE("workflow: found in PNG, WebP and JPEG as ComfyUI writes it") {
  auto png = workflow_texts(data / "texts.png");
  CHECK(nlohmann::json::parse(png.prompt.value())["3"]["inputs"]["text"] == "\xe2\x98\x83 snow");
  CHECK(png.workflow.value() == R"({"nodes": []})");
  for (const char* name : {"texts.webp", "texts.jpg"}) {
    CAPTURE(name);
    auto found = workflow_texts(data / name);
    CHECK(found.prompt.value() == R"({"1": {"class_type": "X"}})");
    CHECK(found.workflow.value() == R"({"nodes": [1]})");
  }
  auto none = workflow_texts(data / "rgb.png");
  CHECK_FALSE(none.prompt);
  CHECK_FALSE(none.workflow);
  CHECK_FALSE(workflow_texts(data / "turned6.jpg").prompt);
  CHECK_THROWS_AS(workflow_texts(data / "pictures.json"), Error);
}

TEST_CASE("exif: blocks that lie give nothing") {
  auto block = [](std::string entries, int count) {
    return std::string("II*\0\x08\0\0\0", 8) + static_cast<char>(count) + '\0' + entries;
  };
  CHECK(parse_exif("").texts.empty());
  CHECK(parse_exif("II*").orientation == 1);
  CHECK(parse_exif(std::string("MM\0*\xff\xff\xff\xff", 8)).texts.empty());
  // Orientation 6; then a text that ends beyond the block; then 200 entries that are not there.
  auto turned = block(std::string("\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 12), 200);
  CHECK(parse_exif(turned).orientation == 6);
  auto beyond = block(std::string("\x0f\x01\x02\0\xff\xff\xff\x7f\x08\0\0\0", 12), 1);
  CHECK(parse_exif(beyond).texts.empty());
  auto nine = block(std::string("\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", 12), 1);
  CHECK(parse_exif(nine).orientation == 1);
}
