#include "distorch/quant/fp8.h"

#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

using namespace distorch;
using quant::Packed;

namespace {

at::Tensor random(std::vector<std::int64_t> shape, int seed = 5) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

/// A weight as a file would have it: values in 8 bits, a scale for all or one a row.
Packed packed(const at::Tensor& weight, at::ScalarType dtype, bool by_row) {
  auto largest = dtype == at::kFloat8_e4m3fn ? 448.0 : 57344.0;
  auto flat = weight.flatten(1).abs();
  auto scale = (by_row ? flat.amax({1}, true) : flat.max()) / largest;
  auto each = by_row ? scale.view({-1, 1}) : scale;
  auto values = (weight.flatten(1) / each).to(dtype).view(weight.sizes());
  const auto& encoding =
      dtype == at::kFloat8_e4m3fn ? quant::float8_e4m3fn() : quant::float8_e5m2();
  return {&encoding, values, {scale, at::Tensor()}, weight.sizes().vec()};
}

/// Value by value on the host, in double precision.
at::Tensor by_hand(const Packed& weight) {
  auto values = weight.values.to(at::kDouble).flatten(1).clone();
  auto scale = weight.parts[0].to(at::kDouble).flatten();
  for (std::int64_t row = 0; row < values.size(0); ++row)
    values[row].mul_(scale[scale.numel() == 1 ? 0 : row].item<double>());
  return values.view(weight.shape);
}

double difference(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got.to(at::kDouble) - wanted.to(at::kDouble)).abs().max() /
          wanted.to(at::kDouble).abs().max())
      .item<double>();
}

}  // namespace

TEST_CASE("float8: values times the scale, of the tensor or of each row, matrices and kernels") {
  for (auto dtype : {at::kFloat8_e4m3fn, at::kFloat8_e5m2})
    for (bool by_row : {false, true}) {
      for (std::vector<std::int64_t> shape :
           {std::vector<std::int64_t>{12, 7}, std::vector<std::int64_t>{6, 5, 3, 3}}) {
        auto weight = packed(random(shape), dtype, by_row);
        CHECK(difference(quant::decode(weight, at::kFloat), by_hand(weight)) < 1e-6);
        CHECK((quant::decode(weight, at::kBFloat16).scalar_type() == at::kBFloat16));
        CHECK(difference(quant::decode(weight.rows(2, 3), at::kFloat),
                         by_hand(weight).narrow(0, 2, 3)) < 1e-6);
      }
    }
}

TEST_CASE("float8: a product is that of the decoded weight, also where rows are taken by tiles") {
  // 64 MiB of float32 rows are a tile: this one is two and a bit.
  constexpr std::int64_t in = 8192, out = 4500;
  auto weight = packed(random({out, in}) / 90, at::kFloat8_e4m3fn, true);
  auto x = random({2, 3, in}, 6), bias = random({out}, 7);
  auto wanted = at::linear(x, quant::decode(weight, at::kFloat), bias);
  CHECK(difference(quant::linear(x, weight, bias), wanted) < 1e-5);
  CHECK(difference(quant::linear(x, weight, {}), wanted - bias) < 1e-5);
  // A 1x1 kernel counts as a matrix.
  auto kernel = packed(random({6, 5, 1, 1}), at::kFloat8_e4m3fn, false);
  auto small = random({4, 5}, 8);
  CHECK(difference(quant::linear(small, kernel, {}),
                   small.mm(by_hand(kernel).to(at::kFloat).view({6, 5}).t())) < 1e-5);
}

TEST_CASE("encodings are found by the names that markers use") {
  const bool found = quant::encoding_named("float8_e4m3fn") == &quant::float8_e4m3fn() &&
                     quant::encoding_named("float8_e5m2") == &quant::float8_e5m2();
  CHECK(found);
  const bool absent = quant::encoding_named("no such thing") == nullptr;
  CHECK(absent);
}
