#include "distorch/server/base64.h"

#include <doctest/doctest.h>

using namespace distorch::server;

TEST_CASE("base64: the vectors of RFC 4648") {
  CHECK(base64_of("") == "");
  CHECK(base64_of("f") == "Zg==");
  CHECK(base64_of("fo") == "Zm8=");
  CHECK(base64_of("foobar") == "Zm9vYmFy");
  CHECK(base64_of("\xff\xfe\xff") == "//7/");
}

TEST_CASE("base64: of addresses there and back, and nothing else") {
  std::string all;
  for (int i = 0; i < 256; ++i) {
    all += static_cast<char>(i);
    CHECK(bytes_of_address(base64_for_address(all)) == all);
  }
  CHECK(base64_for_address("\xff\xfe\xff") == "__7_");
  for (const char* wrong : {"Zg==", "Z", "Zh", "a b", "//7/"}) CHECK(!bytes_of_address(wrong));
}
