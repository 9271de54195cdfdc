#include "distorch/media/exr.h"

#include <doctest/doctest.h>

#include <cstring>

#include "distorch/base/error.h"
#include "distorch/media/image.h"

using namespace distorch;
using namespace distorch::media;

namespace {

template <class T>
T number_at(const std::string& file, std::size_t at) {
  T value;
  REQUIRE(at + sizeof(T) <= file.size());
  std::memcpy(&value, file.data() + at, sizeof(T));
  return value;
}

/// Where the value of a header attribute begins; 0 where it is absent.
std::size_t value_of(const std::string& file, const std::string& name) {
  std::size_t at = 8;
  while (file[at] != '\0') {
    std::string key = file.c_str() + at;
    at += key.size() + 1;
    at += std::strlen(file.c_str() + at) + 1;
    auto size = static_cast<std::size_t>(number_at<std::int32_t>(file, at));
    at += 4;
    if (key == name) return at;
    at += size;
  }
  return name.empty() ? at + 1 : 0;
}

}  // namespace

TEST_CASE("EXR: sizes, texts and lines of floats, channels by alphabet") {
  std::vector<float> values;  // 2 high, 3 wide, RGBA
  for (int i = 0; i < 24; ++i) values.push_back(static_cast<float>(i) * 0.5f);
  auto file = encode_exr(values, 3, 2, 4, {.texts = {{"prompt", "{\"a\": 1}"}}});
  CHECK(number_at<std::uint32_t>(file, 0) == 20000630);
  CHECK(number_at<std::int32_t>(file, value_of(file, "dataWindow") + 8) == 2);
  CHECK(number_at<std::int32_t>(file, value_of(file, "dataWindow") + 12) == 1);
  CHECK(file.substr(value_of(file, "prompt"), 8) == "{\"a\": 1}");
  CHECK(file[value_of(file, "channels")] == 'A');
  CHECK(number_at<float>(file, value_of(file, "chromaticities")) == kRec709[0]);
  auto table = value_of(file, "");
  auto second = static_cast<std::size_t>(number_at<std::uint64_t>(file, table + 8));
  CHECK(number_at<std::int32_t>(file, second) == 1);
  CHECK(number_at<std::int32_t>(file, second + 4) == 48);
  // Alpha of the first pixel, then blue of it behind the three alphas.
  CHECK(number_at<float>(file, second + 8) == values[12 + 3]);
  CHECK(number_at<float>(file, second + 8 + 12) == values[12 + 2]);
  CHECK(second + 8 + 48 == file.size());
  CHECK_THROWS_AS(encode_exr(std::vector<float>(4), 1, 2, 2), Error);
}

TEST_CASE("PNG of 16 bits keeps the higher byte where it is read as 8 bits") {
  std::vector<std::uint16_t> values = {0x1234, 0xFFFF, 0x00FF, 0xAB00, 0x8000, 1};
  auto image = decode_png(encode_png16(values, 2, 1, 3), "test");
  CHECK(image.pixels == std::vector<std::uint8_t>{0x12, 0xFF, 0x00, 0xAB, 0x80, 0x00});
}
