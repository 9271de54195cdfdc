#include "distorch/sampling/noise.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "tests/support/dump.h"

using namespace distorch;
using namespace distorch::sampling;
using namespace distorch::test;

TEST_CASE("initial noise: the reference's bits, for seeds of up to 64 bits") {
  const Dump dump = load_dump("sampler_cases");
  const at::Tensor one = at::zeros({1, 4, 8, 8});
  CHECK(at::equal(prepare_noise(one, 1), dump.at("noise/seed1_1x4x8x8")));
  CHECK(at::equal(prepare_noise(one, 123456789012), dump.at("noise/seed123456789012_1x4x8x8")));
  CHECK(
      at::equal(prepare_noise(one, UINT64_MAX), dump.at("noise/seed18446744073709551615_1x4x8x8")));
  CHECK(at::equal(prepare_noise(at::zeros({2, 4, 8, 8}), 42), dump.at("noise/seed42_2x4x8x8")));
}

TEST_CASE("initial noise: batch indices pick single draws") {
  const Dump dump = load_dump("sampler_cases");
  const at::Tensor two = at::zeros({2, 4, 8, 8});
  CHECK(at::equal(prepare_noise(two, 42, {3, 1}), dump.at("noise/seed42_indices_3_1")));
  CHECK(at::equal(prepare_noise(two, 42, {0, 0}), dump.at("noise/seed42_indices_0_0")));
  CHECK_THROWS_AS(prepare_noise(two, 42, {-1, 0}), Error);
}

TEST_CASE(
    "step noise: gaussian draws go on, and start where the initial noise of that seed starts") {
  const at::Tensor x = at::zeros({1, 4, 8, 8});
  auto noise = gaussian_noise(x, 7);
  const at::Tensor first = (*noise)(3, 2);
  CHECK(at::equal(first, prepare_noise(x, 7)));
  CHECK_FALSE(at::equal((*noise)(3, 2), first));
}

TEST_CASE("step noise: brownian noise is standard normal and turns its sign with the direction") {
  const at::Tensor x = at::zeros({1, 4, 64, 64});
  auto noise = brownian_noise(x, {14.6f, 5.0f, 0.03f, 0.0f}, 7);
  const at::Tensor down = (*noise)(14.6f, 5.0f);
  CHECK(down.std().item().toDouble() == doctest::Approx(1.0).epsilon(0.03));
  CHECK(at::equal((*noise)(5.0f, 14.6f), -down));
}
