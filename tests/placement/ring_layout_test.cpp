#include "distorch/placement/ring_layout.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

using distorch::placement::pack_ring;
using distorch::placement::RingLayout;
using Sizes = std::vector<std::int64_t>;

namespace {

RingLayout packed(const Sizes& sizes, std::int64_t capacity) {
  RingLayout layout;
  pack_ring(sizes, capacity, layout);
  return layout;
}

}  // namespace

TEST_CASE("ring layout: blocks of one size get slots") {
  auto two = packed({8, 8, 8, 8}, 16);
  CHECK(two.rounds == 1);
  CHECK(two.offsets == Sizes{0, 8, 0, 8});
  CHECK(two.after == std::vector<int>{2, 2, 2, 2});
  auto one = packed({8, 8, 8, 8}, 8);
  CHECK(one.after == std::vector<int>{1, 1, 1, 1});
  auto three = packed({8, 8, 8, 8, 8, 8}, 24);
  CHECK(three.after == std::vector<int>(6, 3));
}

TEST_CASE(
    "ring layout: an odd number alternates between two rounds, so that two slots are enough") {
  auto layout = packed({8, 8, 8}, 16);
  CHECK(layout.rounds == 2);
  CHECK(layout.offsets == Sizes{0, 8, 0, 8, 0, 8});
  CHECK(layout.after == std::vector<int>(6, 2));
}

TEST_CASE("ring layout: small blocks share a large slot") {
  auto layout = packed({10, 10, 4, 4, 4, 4, 4, 4}, 20);
  // Five fours fit where two tens do.
  CHECK(layout.after[6] >= 4);
}

TEST_CASE("ring layout: one block takes its own place again") {
  auto layout = packed({8}, 8);
  CHECK(layout.after == std::vector<int>{1});
}

TEST_CASE("ring layout: what overlaps is waited for, nobody waits for the block just before") {
  std::mt19937 random(5);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int round = 0; round < 2000; ++round) {
    Sizes sizes(static_cast<std::size_t>(pick(2, 30)));
    for (auto& size : sizes) size = pick(1, 40);
    const auto slots = pick(1, 4);
    const auto capacity = slots * *std::max_element(sizes.begin(), sizes.end());
    const auto layout = packed(sizes, capacity);
    const auto n = sizes.size(), entries = layout.after.size();
    REQUIRE(entries == n * static_cast<std::size_t>(layout.rounds));
    const auto end = [&](std::size_t k) { return layout.offsets[k] + sizes[k % n]; };
    bool within = true, apart = true, lead = true;
    for (std::size_t k = 0; k < entries; ++k) {
      within = within && layout.offsets[k] >= 0 && end(k) <= capacity;
      for (int back = 1; back < layout.after[k]; ++back) {
        const auto other = (k + entries - static_cast<std::size_t>(back)) % entries;
        apart = apart && (end(k) <= layout.offsets[other] || end(other) <= layout.offsets[k]);
      }
      // Where the circle closes two neighbours may have to share.
      if (slots >= 2 && k > 0 && k + 1 < entries) lead = lead && layout.after[k] >= 2;
    }
    CHECK(within);
    CHECK(apart);
    CHECK(lead);
  }
}
