#include "distorch/media/gif.h"

#include <doctest/doctest.h>

#include <string>

#include "distorch/base/error.h"
#include "distorch/media/read_image.h"

using namespace distorch;

namespace {

std::string two(int number) {
  return {static_cast<char>(number & 0xff), static_cast<char>(number >> 8)};
}

/// A canvas and one frame of that size whose numbers are cut short.
std::string cut(int canvas, int frame) {
  const std::string nothing(3, '\0');
  return "GIF89a" + two(canvas) + two(canvas) + nothing + "," + two(0) + two(0) + two(frame) +
         two(frame) + std::string(1, '\0') + std::string("\x02\x02\x44\x01", 4);
}

}  // namespace

TEST_CASE("gif: a few bytes that claim a large picture are refused before memory is taken") {
  const auto message = [](const std::string& bytes) -> std::string {
    try {
      media::decode_image(bytes, "some.gif");
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  };
  CHECK(message(cut(65535, 65535)) ==
        "some.gif: is a broken GIF: 3 bytes cannot hold its 65535 x 65535 pixels");
  CHECK(message(cut(10, 20000)).find("cannot hold its 20000 x 20000 pixels") != std::string::npos);
  // The frame is small, the canvas is not.
  CHECK(message(cut(30000, 2)).find("cannot hold") != std::string::npos);
  CHECK(message(cut(100, 100)).find("cannot hold") == std::string::npos);
}
