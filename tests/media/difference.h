#pragma once
#include <doctest/doctest.h>

#include <cmath>

#include "distorch/media/image.h"

namespace distorch::test {

/// Of two pictures of one size, in steps of 1/255.
inline double mean_difference(const media::Image& a, const media::Image& b) {
  REQUIRE(a.pixels.size() == b.pixels.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i)
    sum += std::abs(static_cast<double>(a.pixels[i]) - b.pixels[i]);
  return sum / static_cast<double>(a.pixels.size());
}

}  // namespace distorch::test
