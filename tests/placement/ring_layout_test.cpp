#include "distorch/placement/ring_layout.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>

using distorch::placement::pack_ring;
using distorch::placement::RingLayout;
using distorch::placement::RingPiece;
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

TEST_CASE("ring layout: of a block, what the one just before does not have is copied first") {
  // The second leaves most of the place alone that the first had: the third begins there.
  const auto layout = packed({10, 2, 10, 10}, 10);
  const auto pieces = [&](std::size_t k) {
    return std::vector(
        layout.pieces.begin() + static_cast<std::ptrdiff_t>(layout.first_piece[k]),
        layout.pieces.begin() + static_cast<std::ptrdiff_t>(layout.first_piece[k + 1]));
  };
  CHECK((pieces(1) == std::vector<RingPiece>{{2, 1}}));
  CHECK((pieces(2) == std::vector<RingPiece>{{8, 2}, {2, 1}}));
  CHECK((pieces(3) == std::vector<RingPiece>{{10, 1}}));
  // One and a half slots: a block waits for the one just before it with half of its bytes.
  const auto half = packed({8, 8, 8, 8}, 12);
  CHECK(half.offsets == Sizes{0, 4, 0, 4});
  CHECK(half.after == std::vector<int>{1, 1, 1, 1});
  CHECK((half.pieces[half.first_piece[2]] == RingPiece{4, 2}));
  // With two slots nobody waits for it, and a block comes at once.
  const auto two = packed({8, 8, 8, 8}, 16);
  CHECK((two.pieces == std::vector<RingPiece>(4, {8, 2})));
}

TEST_CASE("ring layout: pieces are all of a block, each byte after the last one who used it") {
  std::mt19937 random(6);
  const auto pick = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  for (int round = 0; round < 500; ++round) {
    Sizes sizes(static_cast<std::size_t>(pick(1, 12)));
    for (auto& size : sizes) size = pick(0, 20);
    const auto capacity = *std::max_element(sizes.begin(), sizes.end()) * pick(4, 12) / 4;
    auto layout = packed(sizes, capacity);
    const auto n = sizes.size(), entries = layout.after.size();
    const auto uses = [&](std::size_t k, std::int64_t byte) {
      return layout.offsets[k] <= byte && byte < layout.offsets[k] + sizes[k % n];
    };
    for (std::size_t k = 0; k < entries; ++k) {
      // Bytes by whether the block just before has them, and the nearest one that has any.
      std::int64_t bytes[] = {0, 0};
      auto nearest = static_cast<int>(entries);
      for (auto byte = layout.offsets[k]; byte < layout.offsets[k] + sizes[k % n]; ++byte) {
        std::size_t back = 1;
        while (back < entries && !uses((k + entries - back) % entries, byte)) ++back;
        const bool before = back == 1 && entries > 1;
        ++bytes[before ? 1 : 0];
        if (!before) nearest = std::min(nearest, static_cast<int>(back));
      }
      std::vector<RingPiece> wanted;
      if (bytes[0] > 0 || bytes[1] == 0) wanted.push_back({bytes[0], nearest});
      if (bytes[1] > 0) wanted.push_back({bytes[1], 1});
      const std::vector<RingPiece> got(
          layout.pieces.begin() + static_cast<std::ptrdiff_t>(layout.first_piece[k]),
          layout.pieces.begin() + static_cast<std::ptrdiff_t>(layout.first_piece[k + 1]));
      CHECK((got == wanted));
      CHECK(layout.after[k] == wanted.back().after);
    }
    distorch::placement::join_pieces(sizes, layout);
    CHECK(layout.pieces.size() == entries);
    CHECK((layout.pieces.back() == RingPiece{sizes[(entries - 1) % n], layout.after.back()}));
    CHECK(layout.first_piece.back() == entries);
  }
}
