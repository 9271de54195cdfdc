#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/device/sim/sim.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/fp8_operators.h"
#include "tests/support/devices.h"

using namespace distorch;
using at::Tensor;

// The multiplication itself needs an accelerator with products of 8-bit numbers; everywhere else
// there is none, and the layer casts.
TEST_CASE("any device: products of 8-bit numbers are those of what they stand for, or none") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(4);
  const bool has = quant::has_products(device);
  for (auto dtype : {at::kHalf, at::kBFloat16})
    for (bool scaled : {false, true})
      for (bool biased : {false, true}) {
        CAPTURE(c10::toString(dtype));
        CAPTURE(scaled);
        CAPTURE(biased);
        auto x = at::randn({2, 24, 64}, generator).to(dtype);
        auto bias = biased ? at::randn({32}, generator).to(dtype) : Tensor();
        auto values = at::randn({32, 64}, generator).to(at::kFloat8_e4m3fn);
        auto scale = scaled ? at::full({}, 0.03) : Tensor();
        auto input_scale = scaled ? at::full({}, 0.02) : Tensor();
        quant::Packed weight{&quant::float8_e4m3fn(), values, {scale, input_scale}, {32, 64}};
        auto there = weight.to(device);
        CHECK(there.encoding->rests_packed_for(device) == has);
        auto y = quant::fast_linear(x.to(device), there, biased ? bias.to(device) : Tensor());
        REQUIRE(y.defined() == has);
        if (!has) continue;
        // In float64, from the same 8-bit numbers on both sides.
        auto numbers = quant::to_float8(x, input_scale).first.to(at::kDouble);
        auto wanted = at::matmul(numbers, values.to(at::kDouble).t());
        if (scaled) wanted = wanted * (0.03 * 0.02);
        if (biased) wanted = wanted + bias.to(at::kDouble);
        auto difference = (y.cpu().to(at::kDouble) - wanted).norm() / wanted.norm();
        CHECK((y.scalar_type() == dtype));
        CHECK(at::allclose(y.cpu().to(at::kFloat),
                           quant::float8_linear(x, weight, bias).to(at::kFloat), 2e-2, 2e-2));
        // A layer does so by itself, unless its file or its model says that it must not.
        const auto added = biased ? bias.to(device) : Tensor();
        CHECK(at::equal(there.encoding->product(x.to(device), there, added), y));
        there.encoding = &quant::float8_e4m3fn_decoded();
        CHECK_FALSE(there.encoding->product(x.to(device), there, added).defined());
        CHECK_FALSE(there.encoding->rests_packed_for(device));
        CHECK(difference.item<double>() < (dtype == at::kHalf ? 1e-3 : 8e-3));
      }
}

TEST_CASE("float8: the CPU's product is that of the numbers and both scales") {
  auto x = at::randn({2, 3, 32}) * 3, bias = at::randn({16});
  auto values = at::randn({16, 32}).to(at::kFloat8_e4m3fn);
  for (bool scaled : {false, true}) {
    auto scale = scaled ? at::full({}, 0.03) : Tensor();
    auto input_scale = scaled ? at::full({1}, 0.5) : Tensor();
    quant::Packed weight{&quant::float8_e4m3fn(), values, {scale, input_scale}, {16, 32}};
    auto inputs = (scaled ? x / 0.5 : x).to(at::kFloat8_e4m3fn).to(at::kFloat);
    auto wanted = at::linear(inputs, values.to(at::kFloat)) * (scaled ? 0.5 * 0.03 : 1) + bias;
    CHECK(at::allclose(quant::float8_linear(x, weight, bias), wanted, 1e-5, 1e-5));
  }
}

TEST_CASE("any device: a dry run has the products of the device that it stands for") {
  const auto device = test::test_device();
  const quant::ProductsOf products(device);
  sim::DryScope dry(test::small_rig(1));
  const auto options = at::TensorOptions().device("sim:0");
  quant::Packed weight{&quant::float8_e4m3fn(),
                       at::empty({32, 64}, options.dtype(at::kFloat8_e4m3fn)),
                       {Tensor(), Tensor()},
                       {32, 64}};
  auto y = quant::fast_linear(at::empty({2, 24, 64}, options.dtype(at::kHalf)), weight, {});
  REQUIRE(y.defined() == quant::has_products(device));
  if (y.defined()) CHECK((y.sizes() == at::IntArrayRef{2, 24, 32}));
}
