#include "distorch/sampling/brownian_tree.h"

#include <doctest/doctest.h>

#include "distorch/sampling/noise.h"
#include "tests/support/dump.h"

using namespace distorch::sampling;
using namespace distorch::test;

TEST_CASE("brownian tree: torchsde bit for bit, increments and noise") {
  const Dump dump = load_dump("brownian");
  const auto manifest = load_manifest("brownian");
  const float low = manifest.at("t_min");
  const float high = manifest.at("t_max");
  REQUIRE(manifest.at("cases").size() > 5);
  for (const auto& entry : manifest.at("cases")) {
    const std::string key = entry.at("key");
    CAPTURE(key);
    const auto shape = entry.at("shape").get<std::vector<std::int64_t>>();
    const auto seed = entry.at("seed").get<std::uint64_t>();
    const at::Tensor times = dump.at(key + "/times");
    BrownianTree tree(low, high, shape, seed);
    auto noise = brownian_noise(at::zeros(shape), {high, low, 0.0f}, seed);
    for (std::int64_t i = 0; i < times.size(0); ++i) {
      const float a = times[i][0].item().toFloat();
      const float b = times[i][1].item().toFloat();
      const at::Tensor w = a < b ? tree.increment(a, b) : -tree.increment(b, a);
      CHECK(at::equal(w, dump.at(key + "/w")[i]));
      CAPTURE(a);
      CAPTURE(b);
      if (a != b) {  // no step, no noise: 0 / 0 there
        // The root that it is divided by differs in its last bit from processor to processor.
        const at::Tensor wanted = dump.at(key + "/noise")[i];
        CHECK(((*noise)(a, b) - wanted).abs().max().item<float>() <=
              3e-7f * wanted.abs().max().item<float>());
      }
    }
  }
}

TEST_CASE("brownian tree: increments add up, and neither order nor forgetting changes a bit") {
  const std::vector<std::int64_t> shape = {1, 4, 4, 4};
  BrownianTree tree(0.1, 10.0, shape, 5);
  const at::Tensor whole = tree.increment(1.0, 7.0);
  const at::Tensor parts = tree.increment(1.0, 3.3) + tree.increment(3.3, 7.0);
  CHECK(at::allclose(whole, parts, 1e-4, 1e-4));
  for (int i = 0; i < 60; ++i) {  // pushes the first answers out of the cache
    tree.increment(0.1 + 0.15 * i, 0.2 + 0.15 * i);
  }
  BrownianTree fresh(0.1, 10.0, shape, 5);
  CHECK(at::equal(tree.increment(1.0, 3.3), fresh.increment(1.0, 3.3)));
}

TEST_CASE("brownian tree: times that are equal after rounding give zero, not an endless search") {
  BrownianTree tree(0.1, 10.0, {2, 2}, 5);
  CHECK(at::equal(tree.increment(1.0, 1.0), at::zeros({2, 2})));
  CHECK(at::equal(tree.increment(1.0, 1.0 + 1e-8), at::zeros({2, 2})));
  CHECK(at::equal(tree.increment(11.0, 12.0), at::zeros({2, 2})));
}

TEST_CASE("brownian tree: increments have the variance of the time between") {
  BrownianTree tree(0.0, 4.0, {40000}, 3);
  const double variance = tree.increment(1.0, 2.5).var().item().toDouble();
  CHECK(variance == doctest::Approx(1.5).epsilon(0.03));
}
