#include "distorch/sampling/sigmas.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/sampling/schedules.h"

using namespace distorch;
using namespace distorch::sampling;

// The numbers themselves are compared with ComfyUI's through the nodes (tests/nodes, nodes_custom).

TEST_CASE("sigmas: a text's numbers, whatever stands between them") {
  CHECK(parse_sigmas("1, 0.5;-2 x 1e-3\n.25") == Sigmas{1.0f, 0.5f, -2.0f, 1e-3f, 0.25f});
  CHECK(parse_sigmas("none").empty());
  CHECK(parse_sigmas("").empty());
}

TEST_CASE("sigmas: splitting keeps the level between in both parts") {
  const Sigmas sigmas = {4, 3, 2, 1, 0};
  const auto [high, low] = split_sigmas(sigmas, 1);
  CHECK(high == Sigmas{4, 3});
  CHECK(low == Sigmas{3, 2, 1, 0});
  CHECK(split_sigmas(sigmas, 9).first == sigmas);
  CHECK(split_sigmas(sigmas, 9).second.empty());
  CHECK(split_sigmas({}, 0).first.empty());
  CHECK(split_sigmas_by_denoise(sigmas, 0.5).second == Sigmas{2, 1, 0});
  CHECK(split_sigmas_by_denoise(sigmas, 1.0).second == sigmas);
  CHECK(split_sigmas_by_denoise({}, 0.5).second.empty());
}

TEST_CASE("sigmas: flipping and extending leave the list that they were given") {
  const Sigmas sigmas = {2, 1, 0};
  CHECK(flip_sigmas(sigmas) == Sigmas{0.0001f, 1, 2});
  CHECK(flip_sigmas({}).empty());
  CHECK(extend_sigmas(sigmas, 2, -1, 0.5, Spacing::Linear) == Sigmas{2, 1.5f, 1, 0.5f, 0});
  CHECK(extend_sigmas(sigmas, 1, -1, 0, Spacing::Sine) == sigmas);
  CHECK(extend_sigmas({}, 2, -1, 0, Spacing::Cosine).empty());
}

TEST_CASE("sigmas: numbers outside of a formula are named") {
  CHECK_THROWS_WITH_AS(karras_sigmas(4, {1, 0.1}, 0), doctest::Contains("rho"), Error);
  CHECK_THROWS_WITH_AS(exponential_sigmas(4, {1, 0}), doctest::Contains("sigma_min"), Error);
  CHECK_THROWS_WITH_AS(beta_sigmas(*discrete_sampling(), 4, 0, 1), doctest::Contains("alpha"),
                       Error);
  CHECK_THROWS_WITH_AS(gits_sigmas(0.82, 10, 1), doctest::Contains("0.85"), Error);
  CHECK_THROWS_WITH_AS(tabled_sigmas(Tabled::OptimalSteps, "SDXL", 10, 1),
                       doctest::Contains("SDXL"), Error);
}

TEST_CASE("sigmas: every table of GITS goes from the highest level to 0") {
  for (int row = 0; row < 15; ++row) {
    for (int steps = 2; steps <= 25; ++steps) {
      const Sigmas sigmas = gits_sigmas(0.80 + 0.05 * row, steps, 1.0);
      REQUIRE(sigmas.size() == static_cast<std::size_t>(steps) + 1);
      CHECK(sigmas.front() == doctest::Approx(14.61464119));
      CHECK(sigmas.back() == 0);
      CHECK(std::is_sorted(sigmas.rbegin(), sigmas.rend()));
    }
  }
}
