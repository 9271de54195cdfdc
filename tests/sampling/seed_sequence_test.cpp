#include "distorch/sampling/seed_sequence.h"

#include <doctest/doctest.h>

#include "tests/support/dump.h"

using distorch::sampling::SeedSequence;
using Words = std::vector<std::uint32_t>;

TEST_CASE("seed sequence: numpy's words, with and without a spawn key") {
  CHECK(SeedSequence(0, {}, 24).generate(4) ==
        Words{4025752534, 2687548107, 2326983537, 1576567101});
  CHECK(SeedSequence(UINT64_MAX, {}, 24).generate(4) ==
        Words{1186816001, 310380770, 3217591682, 2718387704});
  CHECK(SeedSequence(123456789012, {5, 3}, 24).generate(4) ==
        Words{4015752457, 896531610, 3759908326, 231446146});
}

TEST_CASE("seed sequence: a spawn key of more than 32 bits takes two words") {
  CHECK(SeedSequence(1, {(1ULL << 40) + 1, 7}, 24).generate(4) ==
        Words{1053823458, 3403369523, 3666336791, 1634670311});
}

TEST_CASE("seed sequence: a zero key differs from no key, and keys differ from each other") {
  const Words none = SeedSequence(9, {}, 24).generate(2);
  CHECK(SeedSequence(9, {0, 1}, 24).generate(2) != SeedSequence(9, {1, 0}, 24).generate(2));
  CHECK(SeedSequence(9, {0, 0}, 24).generate(2) != none);
}
