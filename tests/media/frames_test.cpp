#include <doctest/doctest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/apng.h"
#include "distorch/media/bmp.h"
#include "distorch/media/exif.h"
#include "distorch/media/read_image.h"
#include "distorch/media/webp.h"
#include "distorch/media/workflow_texts.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::media;

namespace {

const std::filesystem::path data = test::source_dir() / "tests/media/data";

std::vector<std::uint8_t> from_hex(const std::string& hex) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

int largest_difference(const std::vector<std::uint8_t>& a, const std::vector<std::uint8_t>& b) {
  int largest = a.size() == b.size() ? 0 : 256;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    largest = std::max(largest, std::abs(int{a[i]} - int{b[i]}));
  return largest;
}

std::string refusal(std::string_view bytes) {
  try {
    decode_frames(bytes, "x");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::Format);
    CHECK(e.where() == "x");
    return e.sentence();
  }
  return "accepted";
}

std::string number(std::uint32_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 255);
  return text;
}

}  // namespace

TEST_CASE("frames: what Pillow gives ComfyUI's loader, frame by frame") {
  auto expected = nlohmann::json::parse(read_file(data / "frames.json"));
  CHECK(expected.size() >= 55);
  for (const auto& [name, want] : expected.items()) {
    CAPTURE(name);
    auto frames = read_frames(data / name);
    REQUIRE(frames.size() == want["frames"].size());
    for (std::size_t i = 0; i < frames.size(); ++i) {
      CAPTURE(i);
      CHECK(frames[i].width == want["width"]);
      CHECK(frames[i].height == want["height"]);
      CHECK(frames[i].channels == want["channels"][i]);
      CHECK(largest_difference(frames[i].pixels, from_hex(want["frames"][i])) <=
            want["tolerance"].get<int>());
    }
    CHECK(read_image(data / name) == frames[0]);
  }
}

TEST_CASE("frames: pictures of one frame have one") {
  for (const char* name : {"rgb.png", "smooth.jpg", "lossy.webp", "turned6.jpg"}) {
    auto frames = read_frames(data / name);
    CHECK(frames.size() == 1);
    CHECK(frames[0] == read_image(data / name));
  }
  CHECK(read_frames(data / "animated.webp").size() == 3);
}

TEST_CASE("frames: files cut short are refused, bent ones never do harm") {
  for (std::string name :
       {"rgb.bmp", "runs8.bmp", "six_bits.bmp", "rgb.tif", "planes.tif", "pages.tif", "jpeg.tif",
        "still.gif", "taken_back.gif", "over.apng.png", "frames.webp", "alpha.avif"}) {
    CAPTURE(name);
    auto bytes = read_file(data / name);
    // An animation may end after any whole frame; its first one must be there.
    auto most = name.find("gif") != std::string_view::npos ? bytes.size() / 4 : bytes.size() - 20;
    for (std::size_t size = 3; size < most; size += 7)
      CHECK(refusal(std::string_view(bytes).substr(0, size)) != "accepted");
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      auto bent = bytes;
      bent[i] = static_cast<char>(~bent[i]);
      try {
        decode_frames(bent, "bent");
      } catch (const Error&) {
      }
    }
  }
}

TEST_CASE("frames: sizes are checked before memory is taken") {
  auto header = [](std::uint32_t width, std::uint32_t height, std::uint32_t bits) {
    return "BM" + std::string(8, '\0') + number(54, 4) + number(40, 4) + number(width, 4) +
           number(height, 4) + number(1, 2) + number(bits, 2) + std::string(24, '\0');
  };
  CHECK(refusal(header(1 << 20, 1 << 20, 24)).find("the limit is 268435456 in all") !=
        std::string::npos);
  CHECK(refusal(header(1 << 13, 1 << 13, 24)) ==
        "is a broken BMP: it ends in the middle of the picture");
  CHECK(refusal(header(1 << 13, 1 << 13, 7)) == "is a broken BMP: 7 bits a pixel");
  // Four frames of the largest size are allowed, a fifth is too much.
  FrameBudget budget("x");
  for (int i = 0; i < 4; ++i) budget.add(1 << 14, 1 << 14);
  CHECK_THROWS_WITH_AS(budget.add(1 << 14, 1 << 14),
                       "x: has frames of more than 1073741824 pixels in all", Error);
  CHECK_THROWS_AS(budget.add(1 << 15, 1 << 14), Error);
  CHECK_THROWS_AS(budget.add(0, 1), Error);
}

TEST_CASE("frames: an animated PNG must keep its promises") {
  auto whole = read_file(data / "over.apng.png");
  CHECK(is_apng(whole));
  CHECK_FALSE(is_apng(read_file(data / "rgb.png")));
  // The last frame's data are gone, with the end of the file.
  auto at = whole.rfind("fdAT");
  CHECK(refusal(whole.substr(0, at)) ==
        "is a broken animated PNG: it ends in the middle of a frame");
}

namespace {

/// Frames of which the second and the third are alike.
std::vector<Image> three_frames() {
  std::vector<Image> frames;
  for (int value : {10, 200, 200}) {
    auto frame = blank_image(7, 5, 3);
    for (std::size_t i = 0; i < frame.pixels.size(); ++i)
      frame.pixels[i] = static_cast<std::uint8_t>(value + static_cast<int>(i) % 40);
    frames.push_back(frame);
  }
  return frames;
}

}  // namespace

TEST_CASE("frames: what is written as an animated PNG is read back, like frames once") {
  auto frames = three_frames();
  auto bytes = encode_apng(frames, {.milliseconds = 250, .texts = {{"prompt", "{\"1\": 2}"}}});
  CHECK(is_apng(bytes));
  auto read = decode_frames(bytes, "x");
  REQUIRE(read.size() == 2);
  CHECK(read[0] == frames[0]);
  CHECK(read[1] == frames[1]);
  // The first frame stands a quarter of a second, the second one twice as long.
  auto first = bytes.find("fcTL"), second = bytes.find("fcTL", first + 4);
  CHECK(bytes.substr(first + 24, 4) == std::string("\x00\xfa\x03\xe8", 4));
  CHECK(bytes.substr(second + 24, 4) == std::string("\x01\xf4\x03\xe8", 4));
  CHECK(bytes.find("comf") > bytes.find("fdAT"));
  CHECK(png_texts(bytes, "x") == std::vector<Text>{{"prompt", "{\"1\": 2}"}});
  auto still = encode_apng({frames[0]}, {.texts = {{"prompt", "{}"}}});
  CHECK_FALSE(is_apng(still));
  CHECK(decode_frames(still, "x").at(0) == frames[0]);
  // A hundred seconds are more than two bytes of milliseconds.
  auto slow = encode_apng(frames, {.milliseconds = 100'000});
  first = slow.find("fcTL");
  CHECK(slow.substr(first + 24, 4) == std::string("\x27\x10\x00\x64", 4));
  CHECK_THROWS_AS(encode_apng({}, {}), Error);
}

TEST_CASE("frames: what is written as an animated WebP is read back, with its texts") {
  auto frames = three_frames();
  std::map<int, std::string> texts = {{0x010f, "workflow:{\"a\": 1}"}, {0x0110, "prompt:{}"}};
  auto bytes = encode_webp_animation(frames, {.lossless = true, .exif = exif_block(texts)});
  auto read = decode_frames(bytes, "x");
  REQUIRE(read.size() >= 2);
  CHECK(to_rgb(read.front()) == frames.front());
  CHECK(to_rgb(read.back()) == frames.back());
  CHECK(parse_exif(*webp_exif(bytes)).texts == texts);
  auto workflow = workflow_texts_in(bytes, "x");
  CHECK(workflow.prompt == "{}");
  CHECK(workflow.workflow == "{\"a\": 1}");
  auto still = encode_webp_animation({frames[1]}, {.lossless = false, .quality = 90, .method = 0});
  CHECK(decode_frames(still, "x").size() == 1);
  CHECK_FALSE(webp_exif(still).has_value());
  CHECK_THROWS_AS(encode_webp_animation({blank_image(20000, 1, 3)}, {}), Error);
}

TEST_CASE("frames: an EXIF block holds short and long texts") {
  std::map<int, std::string> texts = {{0x010e, "abc"}, {0x010f, "abcd"}, {0x0110, "odd"}};
  auto block = exif_block(texts);
  CHECK(block.starts_with(std::string("Exif\0\0MM\0*", 10)));
  // Pillow's bytes.
  const char pillow[] =
      "Exif\0\0MM\0*\0\0\0\10\0\2\1\17\0\2\0\0\0\22\0\0\0&\1\20\0\2\0\0\0\n\0\0\0008\0\0\0\0"
      "workflow:{\"a\": 1}\0prompt:{}";
  CHECK(exif_block({{0x010f, "workflow:{\"a\": 1}"}, {0x0110, "prompt:{}"}}) ==
        std::string(pillow, sizeof pillow));
  CHECK(parse_exif(block).texts == texts);
  CHECK(parse_exif(exif_block({})).texts.empty());
}
