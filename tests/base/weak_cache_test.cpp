#include "distorch/base/weak_cache.h"

#include <doctest/doctest.h>

using distorch::WeakCache;

TEST_CASE("weak cache: names of things that are gone are forgotten") {
  WeakCache<const int> cache;
  auto one = std::make_shared<const int>(1);
  cache.keep("one", one);
  CHECK(cache.find("one") == one);
  CHECK(cache.find("two") == nullptr);
  one.reset();
  CHECK(cache.find("one") == nullptr);
  auto two = std::make_shared<const int>(2);
  cache.keep("two", two);
  CHECK(cache.size() == 1);
  CHECK(cache.find("two") == two);
  auto other = std::make_shared<const int>(3);
  cache.keep("two", other);
  CHECK(cache.find("two") == other);
}
