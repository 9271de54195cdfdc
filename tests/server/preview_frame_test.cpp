#include "distorch/server/preview_frame.h"

#include <doctest/doctest.h>

#include "distorch/graph/json_text.h"
#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"

using namespace distorch;
using namespace distorch::server;

TEST_CASE("previews: fitted as Pillow's bilinear resize does it") {
  media::Image image = media::blank_image(4, 2, 1);
  image.pixels = {0, 100, 200, 40, 10, 20, 30, 250};
  // Image.resize((8, 4), BILINEAR) and ((2, 1), BILINEAR).
  CHECK(fitted(image, 8).pixels == std::vector<std::uint8_t>{0,  25, 75, 125, 175, 160, 80,  40,
                                                             3,  22, 61, 100, 138, 141, 109, 93,
                                                             8,  16, 32, 49,  65,  104, 166, 198,
                                                             10, 13, 18, 23,  28,  85,  195, 250});
  auto small = fitted(image, 2);
  CHECK(small.width == 2);
  CHECK(small.height == 1);
  CHECK(small.pixels == std::vector<std::uint8_t>{44, 120});
  CHECK(fitted(image, 4) == image);
  CHECK(fitted(media::blank_image(1, 900, 3), 512).width == 1);
}

TEST_CASE("previews: both kinds of frames") {
  auto image = media::blank_image(8, 4, 3);
  auto jpeg = encode_preview(image, 16);
  CHECK(!jpeg.png);
  auto plain = preview_payload(jpeg);
  CHECK(plain.substr(0, 4) == std::string("\0\0\0\1", 4));
  CHECK(media::decode_jpeg(plain.substr(4), "frame").width == 16);
  auto png = encode_preview(media::blank_image(8, 4, 4), 8);
  CHECK(preview_payload(png).substr(0, 4) == std::string("\0\0\0\2", 4));
  CHECK(media::is_png(png.bytes));

  graph::Preview event{"p", {.node_id = "3", .display_node_id = "3", .real_node_id = "3"}, {}};
  auto payload = preview_payload(jpeg, event);
  auto length = static_cast<std::size_t>(static_cast<unsigned char>(payload[2])) * 256 +
                static_cast<unsigned char>(payload[3]);
  CHECK(payload.substr(0, 2) == std::string("\0\0", 2));
  CHECK(payload.substr(4, length) ==
        R"({"node_id":"3","prompt_id":"p","display_node_id":"3","parent_node_id":null,)"
        R"("real_node_id":"3","image_type":"image/jpeg"})");
  CHECK(payload.substr(4 + length) == jpeg.bytes);
}
