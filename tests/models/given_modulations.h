#pragma once
#include <algorithm>

#include "distorch/base/error.h"
#include "distorch/models/modulated.h"
#include "tests/models/tiny.h"

namespace distorch::test {

/// A call that is given its modulations, which were made among those of other levels, gives the bits
/// of `out`, which made its own, and runs none of the blocks that make them. False where it takes none.
inline bool check_given(models::Network& network, TwiceSource& source, models::Inputs inputs,
                        const at::Tensor& out) {
  const auto& modulated = dynamic_cast<const models::Modulated&>(network);
  const auto numbers = modulated.modulation_numbers(inputs);
  if (numbers == 0) return false;
  const auto& timestep = inputs["timestep"];
  const auto made = modulated.modulations(inputs, {timestep * 0.5, timestep, timestep * 0.25});
  CHECK(made.sizes() == at::IntArrayRef({3, numbers}));
  inputs.set(models::kModulations, made[1]);
  source.runs.clear();
  source.order.clear();
  CHECK(at::equal(network.apply(inputs), out));
  CHECK(source.in_order());
  const auto& blocks = network.manifest().blocks();
  CHECK(std::none_of(source.runs.begin(), source.runs.end(),
                     [&](const auto& run) { return blocks[run.first].ends_with("modulation"); }));
  inputs.set(models::kModulations, made[1].narrow(0, 1, numbers - 1));
  CHECK_THROWS_WITH_AS(network.apply(inputs), doctest::Contains("modulations"), Error);
  return true;
}

}  // namespace distorch::test
