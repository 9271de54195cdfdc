// Rounding by chance: only neighbours, as often as their distance says, never beyond the largest.
#include <doctest/doctest.h>

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <set>

#include "distorch/quant/rounding.h"

using namespace distorch;
using at::Tensor;

namespace {

struct Type {
  at::ScalarType dtype;
  int mantissa_bits;
  int lowest_exponent;
  double largest;
};

const std::vector<Type> types{{at::kFloat8_e4m3fn, 3, -6, 448.0},
                              {at::kFloat8_e5m2, 2, -14, 57344.0}};

Tensor rounded(const Tensor& value, at::ScalarType dtype, std::uint64_t seed = 3) {
  return quant::round_by_chance(value, dtype, seed).to(at::kDouble);
}

/// Distance of neighbours around x.
double step(const Type& type, double x) {
  auto exponent =
      x == 0 ? type.lowest_exponent : static_cast<int>(std::floor(std::log2(std::abs(x))));
  return std::ldexp(1.0, std::max(exponent, type.lowest_exponent) - type.mantissa_bits);
}

}  // namespace

TEST_CASE("rounding by chance: numbers that the type has stay, but for half precision's chance") {
  for (const auto& type : types) {
    std::vector<double> exact{0.0};
    for (int exponent = type.lowest_exponent; std::ldexp(1.0, exponent) < type.largest; ++exponent)
      for (int m = 0; m < 1 << type.mantissa_bits; ++m) {
        auto value = std::ldexp(1.0 + m / std::exp2(type.mantissa_bits), exponent);
        if (value <= type.largest) exact.push_back(value);
      }
    // Those below the smallest normal one.
    for (int m = 1; m < 1 << type.mantissa_bits; ++m)
      exact.push_back(std::ldexp(m, type.lowest_exponent - type.mantissa_bits));
    auto value = at::tensor(exact, at::kDouble);
    // A chance of nearly 1, added to a whole number in half precision, makes the next one: then a
    // number moves by a step, as in the reference.
    auto many = value.repeat({500});
    auto step_up = many * std::exp2(-type.mantissa_bits) +
                   std::ldexp(1.0, type.lowest_exponent - type.mantissa_bits);
    for (std::uint64_t seed : {1u, 2u, 77u})
      for (double sign : {1.0, -1.0}) {
        auto got = rounded(many * sign, type.dtype, seed) * sign;
        CHECK((got != many).to(at::kDouble).mean().item<double>() < 0.004);
        CHECK((got >= many).all().item<bool>());
        CHECK((got <= many + step_up).all().item<bool>());
      }
  }
}

TEST_CASE("rounding by chance: a number between two becomes one of them, the nearer the likelier") {
  for (const auto& type : types)
    for (double size : {1.0, 1.5, 0.03125, 96.0, std::ldexp(1.0, type.lowest_exponent - 1)})
      for (double share : {0.1, 0.25, 0.5, 0.9}) {
        auto apart = step(type, size);
        auto x = size + share * apart;
        auto got = rounded(at::full({64, 128}, x, at::kDouble), type.dtype);
        auto up = (got == size + apart).to(at::kDouble).mean().item<double>();
        auto down = (got == size).to(at::kDouble).mean().item<double>();
        CAPTURE(x);
        CHECK(up + down == doctest::Approx(1.0));
        // Five times the deviation of 8192 throws, and what the half-precision numbers lose.
        CHECK(std::abs(up - share) < 5 * std::sqrt(share * (1 - share) / 8192) + 1.0 / 512);
      }
}

TEST_CASE("rounding by chance: what is too large becomes the largest, with its sign") {
  for (const auto& type : types)
    for (double x : {type.largest * 1.001, type.largest * 1.03, 60000.0, 65472.0, 65503.0, 65504.0,
                     65520.0, 1e9, std::numeric_limits<double>::infinity()}) {
      CHECK(at::equal(rounded(at::full({4, 4}, x, at::kDouble), type.dtype),
                      at::full({4, 4}, type.largest, at::kDouble)));
      CHECK(at::equal(rounded(at::full({4, 4}, -x, at::kDouble), type.dtype),
                      at::full({4, 4}, -type.largest, at::kDouble)));
    }
}

TEST_CASE("rounding by chance: the seed decides, and nothing else") {
  auto x = at::linspace(-3, 3, 512, at::kFloat).view({32, 16});
  for (const auto& type : types) {
    auto a = rounded(x, type.dtype, 9);
    CHECK(at::equal(a, rounded(x, type.dtype, 9)));
    CHECK_FALSE(at::equal(a, rounded(x, type.dtype, 10)));
    CHECK((quant::round_by_chance(x, type.dtype, 9).scalar_type() == type.dtype));
    CHECK(quant::round_by_chance(x, type.dtype, 9).sizes() == x.sizes());
  }
}

TEST_CASE("the seed of a name is its CRC-32") {
  // The check value that the algorithm is known by, and the CRC of nothing.
  CHECK(quant::crc32_of("123456789") == 0xCBF43926u);
  CHECK(quant::crc32_of("") == 0u);
  CHECK(quant::crc32_of(std::string(1, '\xff')) == 0xFF000000u);
}
