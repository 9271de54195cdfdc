#include "distorch/media/picture_size.h"

#include <doctest/doctest.h>

#include "distorch/media/jpeg.h"
#include "distorch/media/png.h"
#include "distorch/media/webp.h"

using namespace distorch::media;

TEST_CASE("picture size: read from the header alone") {
  auto picture = blank_image(31, 17, 3);
  PictureSize wanted{31, 17};
  CHECK(picture_size(encode_png(picture)) == wanted);
  CHECK(picture_size(encode_jpeg(picture)) == wanted);
  CHECK(picture_size(encode_webp(picture)) == wanted);
  CHECK(picture_size(encode_webp(blank_image(31, 17, 4))) == wanted);
  using std::string_view_literals::operator""sv;
  CHECK(picture_size("GIF89a\x1f\0\x11\0\0\0\0"sv) == wanted);
  std::string bmp = "BM" + std::string(12, '\0') + std::string("\x28\0\0\0", 4) +
                    std::string("\x1f\0\0\0\xef\xff\xff\xff", 8) + std::string(32, '\0');
  CHECK(picture_size(bmp) == wanted);
}

TEST_CASE("picture size: a header cut short or of another format says nothing") {
  for (const auto& bytes : {encode_png(blank_image(3, 3, 3)), encode_jpeg(blank_image(3, 3, 3)),
                            encode_webp(blank_image(3, 3, 3))})
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      auto size = picture_size(std::string_view(bytes).substr(0, length));
      CHECK((!size || *size == PictureSize{3, 3}));
    }
  CHECK(!picture_size("II*\0 no"));
  CHECK(!picture_size(""));
  CHECK(!picture_size("\xff\xd8\xff\xe0"));
}
