// Pixels, turns, sizes and EXIF blocks, value by value.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "distorch/base/error.h"
#include "distorch/media/exif.h"
#include "distorch/media/frames.h"
#include "distorch/media/image.h"
#include "distorch/media/picture_size.h"

using namespace distorch;
using namespace distorch::media;

namespace {

/// Every pixel says where it is.
Image map_of(int width, int height, int channels) {
  auto image = blank_image(width, height, channels);
  std::size_t at = 0;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      for (int c = 0; c < channels; ++c)
        image.pixels[at++] = static_cast<std::uint8_t>(y * 40 + x * 4 + c);
  return image;
}

int pixel(const Image& image, int x, int y, int c) {
  return image.pixels[static_cast<std::size_t>((y * image.width + x) * image.channels + c)];
}

template <class Call>
std::string refusal(Call call, ErrorKind kind) {
  try {
    call();
  } catch (const Error& error) {
    CHECK((error.kind() == kind));
    return error.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("pixels: a product of bytes is rounded exactly, for all of them") {
  for (unsigned a = 0; a < 256; ++a)
    for (unsigned b = 0; b < 256; ++b)
      REQUIRE(scaled_by(a, b) == static_cast<int>(std::floor(a * b / 255.0 + 0.5)));
}

TEST_CASE("pixels: floats are cut off, clipped, and nothing for what is no number") {
  const float infinite = std::numeric_limits<float>::infinity();
  const std::vector<std::pair<float, int>> values = {
      {0.0f, 0},   {0.5f, 127}, {0.0039f, 0},    {0.004f, 1},    {0.9999f, 254},    {1.0f, 255},
      {1.5f, 255}, {-0.1f, 0},  {infinite, 255}, {-infinite, 0}, {std::nanf(""), 0}};
  for (auto [value, wanted] : values) {
    const std::vector<float> one{value};
    CHECK(from_floats(one, 1, 1, 1).pixels[0] == wanted);
  }
  for (int value = 0; value < 256; ++value) {
    Image image{1, 1, 1, {static_cast<std::uint8_t>(value)}};
    CHECK(to_floats(image)[0] == static_cast<float>(value) / 255.0f);
  }
  const std::vector<float> five(5);
  CHECK(refusal([&] { from_floats(five, 2, 1, 3); }, ErrorKind::Shape) ==
        "image: 1 x 2 x 3 takes 6 values, 5 were given");
}

TEST_CASE("pixels: gray becomes three equal channels, alpha is dropped as it is") {
  auto gray = map_of(3, 2, 1), alpha = map_of(3, 2, 4), color = map_of(3, 2, 3);
  CHECK(to_rgb(color) == color);
  for (int y = 0; y < 2; ++y)
    for (int x = 0; x < 3; ++x)
      for (int c = 0; c < 3; ++c) {
        CHECK(pixel(to_rgb(gray), x, y, c) == pixel(gray, x, y, 0));
        CHECK(pixel(to_rgb(alpha), x, y, c) == pixel(alpha, x, y, c));
      }
}

TEST_CASE("turns: the eight orientations, by what they do to the corners") {
  // Where the stored picture's first row and first column are in the upright one (EXIF 2.3).
  const auto image = map_of(5, 3, 3);
  for (int orientation = 0; orientation <= 9; ++orientation) {
    CAPTURE(orientation);
    auto turned = upright(image, orientation);
    bool across = orientation >= 5 && orientation <= 8;
    REQUIRE(turned.width == (across ? 3 : 5));
    REQUIRE(turned.height == (across ? 5 : 3));
    for (int row = 0; row < 3; ++row)
      for (int column = 0; column < 5; ++column) {
        int x = column, y = row;
        switch (orientation) {
          case 2: x = 4 - column; break;               // mirrored
          case 3: x = 4 - column, y = 2 - row; break;  // half around
          case 4: y = 2 - row; break;                  // upside down
          case 5: x = row, y = column; break;          // over the diagonal
          case 6: x = 2 - row, y = column; break;      // a quarter to the right
          case 7: x = 2 - row, y = 4 - column; break;  // over the other diagonal
          case 8: x = row, y = 4 - column; break;      // a quarter to the left
          default: break;
        }
        for (int c = 0; c < 3; ++c) CHECK(pixel(turned, x, y, c) == pixel(image, column, row, c));
      }
  }
}

TEST_CASE("sizes: the last that is taken and the first that is not") {
  constexpr std::uint64_t limit = pixel_limit;
  CHECK_NOTHROW(check_size(1, limit, "f"));
  CHECK_NOTHROW(check_size(1 << 14, 1 << 14, "f"));
  CHECK(refusal([&] { check_size(1 << 14, (1 << 14) + 1, "f"); }, ErrorKind::Format) ==
        "f: says it has 16384 x 16385 pixels, the limit is 268435456 in all");
  CHECK(refusal([&] { check_size(limit + 1, 1, "f"); }, ErrorKind::Format) != "accepted");
  // A product that would overflow.
  CHECK(refusal([&] { check_size(~0ull, ~0ull, "f"); }, ErrorKind::Format) != "accepted");
  CHECK(refusal([&] { check_size(std::uint64_t{1} << 32, std::uint64_t{1} << 32, "f"); },
                ErrorKind::Format) != "accepted");
  CHECK(refusal([&] { check_size(0, 5, "f"); }, ErrorKind::Format) ==
        "f: says it has 0 x 5 pixels");
  CHECK(refusal([&] { check_size(5, 0, "f"); }, ErrorKind::Format) ==
        "f: says it has 5 x 0 pixels");
  FrameBudget budget("f");
  for (int i = 0; i < 4; ++i) budget.add(1 << 14, 1 << 14);
  CHECK(refusal([&] { budget.add(1, 1); }, ErrorKind::Format) ==
        "f: has frames of more than 1073741824 pixels in all");
  for (auto [width, height, channels] :
       {std::tuple(0, 1, 3), std::tuple(1, 0, 3), std::tuple(-1, 1, 3), std::tuple(1, 1, 2),
        std::tuple(1, 1, 0), std::tuple(1, 1, 5), std::tuple(1 << 15, 1 << 15, 1)})
    CHECK(refusal([&] { blank_image(width, height, channels); }, ErrorKind::Usage)
              .starts_with("image: cannot have "));
}

TEST_CASE("picture size: BMP headers of both ages, rows upwards and downwards; GIF") {
  auto number = [](std::uint32_t value, int size) {
    std::string bytes;
    for (int i = 0; i < size; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
    return bytes;
  };
  auto bmp = [&](std::uint32_t header, const std::string& sizes) {
    return "BM" + std::string(12, '\0') + number(header, 4) + sizes + std::string(30, '\0');
  };
  CHECK(picture_size(bmp(12, number(300, 2) + number(200, 2))) == PictureSize{300, 200});
  CHECK(picture_size(bmp(40, number(70000, 4) + number(2, 4))) == PictureSize{70000, 2});
  CHECK(picture_size(bmp(40, number(7, 4) + number(static_cast<std::uint32_t>(-9), 4))) ==
        PictureSize{7, 9});
  CHECK_FALSE(picture_size(bmp(40, "").substr(0, 25)).has_value());
  CHECK(picture_size("GIF89a" + number(258, 2) + number(3, 2)) == PictureSize{258, 3});
  CHECK_FALSE(picture_size("GIF89a" + number(258, 2) + "x").has_value());
}

TEST_CASE("picture size: a JPEG's frame behind any segments, none behind the first scan") {
  using namespace std::string_literals;
  const auto start = "\xff\xd8"s,
             comment =
                 "\xff\xfe\x00\x05"
                 "abc"s,
             fill = "\xff"s;
  const auto tables = "\xff\xc4\x00\x04zz"s, restart = "\xff\xd0"s;
  auto frame = [](char kind) {
    return "\xff"s + kind + "\x00\x0b\x08\x01\x02\x03\x04\x01zzz"s;  // 258 rows of 772 pixels
  };
  const PictureSize wanted{772, 258};
  for (char kind : {'\xc0', '\xc1', '\xc2', '\xc3', '\xc5', '\xcf'})
    CHECK(picture_size(start + frame(kind)) == wanted);
  CHECK(picture_size(start + comment + fill + tables + restart + frame('\xc2')) == wanted);
  for (char kind : {'\xc4', '\xc8', '\xcc'})
    CHECK_FALSE(picture_size(start + frame(kind)).has_value());
  CHECK_FALSE(picture_size(start + "\xff\xda\x00\x02"s + frame('\xc0')).has_value());
  CHECK_FALSE(picture_size(start + "\xff\xfe\x00\x01"s + frame('\xc0')).has_value());
  CHECK_FALSE(picture_size(start + "x" + frame('\xc0')).has_value());
  CHECK_FALSE(picture_size(start + frame('\xc0').substr(0, 8)).has_value());
  CHECK_FALSE(picture_size(start + "\xff\xfe\xff\xff"s).has_value());
}

TEST_CASE("exif: blocks of any texts are read back; a turn in both byte orders") {
  std::mt19937 random(4);
  for (int round = 0; round < 200; ++round) {
    std::map<int, std::string> texts;
    for (auto n = random() % 6; n > 0; --n) {
      std::string text(1 + random() % 9, 'a');
      for (char& c : text) c = static_cast<char>('a' + random() % 26);
      texts[static_cast<int>(random() % 65535)] = text;
    }
    texts.erase(0x0112);
    auto block = exif_block(texts);
    auto read = parse_exif(block);
    CHECK(read.texts == texts);
    CHECK(read.orientation == 1);
    CHECK(parse_exif(std::string_view(block).substr(6)).texts == texts);
    // Cut anywhere: some of the texts, never others.
    for (std::size_t size = 0; size < block.size(); ++size)
      for (const auto& [tag, text] : parse_exif(std::string_view(block).substr(0, size)).texts)
        CHECK(texts.count(tag) == 1);
  }
  using namespace std::string_literals;
  for (int turn = 0; turn <= 9; ++turn) {
    const auto value = static_cast<char>(turn);
    auto big = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"s + value + "\0\0"s;
    auto little = "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"s + value + "\0\0\0"s;
    for (const auto& block : {big, little})
      CHECK(parse_exif(block).orientation == (turn >= 1 && turn <= 8 ? turn : 1));
  }
}
