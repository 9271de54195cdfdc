#include "distorch/base/hash.h"

#include <doctest/doctest.h>

using namespace distorch;

TEST_CASE("hash: XXH3 with 128 bits, the same everywhere") {
  // Published test vector of the empty input.
  CHECK(hex(digest("")) == "99aa06d3014798d86001c324468d497f");
  CHECK(digest("a") != digest("b"));
  CHECK(digest("a", 1) != digest("a"));
  CHECK(digest("a", 1) == digest("a", 1));
}

TEST_CASE("hash: the keyed one tells contents apart under a secret of its own") {
  std::string large(1000, 'x');
  for (std::string text : {std::string(), std::string("a"), large}) {
    CHECK(keyed_digest(text) == keyed_digest(text));
    CHECK(keyed_digest(text) != digest(text));
    CHECK(keyed_digest(text) != keyed_digest(text + "y"));
  }
}
