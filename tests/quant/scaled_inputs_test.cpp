#include "distorch/quant/scaled_inputs.h"

#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include "distorch/device/cuda/numbers.h"
#include "distorch/quant/block_scaled.h"
#include "distorch/quant/marker.h"
#include "distorch/quant/quantize.h"
#include "tests/support/devices.h"

using namespace distorch;
using at::Tensor;
using quant::Packed;

namespace {

constexpr std::int64_t rows = 40, filled = 64, in = 320;

/// Rows of very different sizes, two blocks of zeros.
Tensor inputs(at::ScalarType dtype) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(11);
  auto x = at::randn({rows, in}, generator) * at::randn({rows, 1}, generator).mul(3).exp();
  x.narrow(1, 32, 64).zero_();
  return x.clamp(-200, 200).to(dtype);
}

/// As a weight is read.
Tensor numbers_of(const quant::ScaledInputs& made, const Tensor& whole) {
  const bool four = whole.defined();
  return quant::decode(Packed{four ? &quant::nvfp4() : &quant::mxfp8(),
                              made.values,
                              {made.scales, whole, Tensor(), Tensor()},
                              {filled, in}},
                       at::kFloat);
}

Tensor bytes(const Tensor& tensor) { return tensor.cpu().view(at::kByte); }

}  // namespace

TEST_CASE("scaled inputs: rounded as weights are, with rows of zeros up to a multiple of 32") {
  for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16})
    for (const auto& whole : {Tensor(), at::full({1}, 0.3f)}) {
      const bool four = whole.defined();
      CAPTURE(four);
      auto x = inputs(dtype);
      auto made = quant::scaled_inputs(x, whole);
      CHECK((made.scales.sizes() ==
             at::IntArrayRef(quant::blocked_shape(filled, in / (four ? 16 : 32)))));
      auto got = numbers_of(made, whole);
      CHECK(got.narrow(0, rows, filled - rows).eq(0).all().item<bool>());
      // Half a step of nvfp4 is a sixth of the largest, of mxfp8 a sixteenth; scales take their share.
      auto wanted = x.to(at::kFloat);
      auto largest = at::amax(wanted.abs().unflatten(1, {-1, four ? 16 : 32}), {2}, true);
      auto error = (got.narrow(0, 0, rows) - wanted).abs().unflatten(1, {-1, four ? 16 : 32});
      CHECK((error <= largest * (four ? 0.24 : 0.07) + (four ? 0.03 : 0)).all().item<bool>());
    }
}

TEST_CASE("any device: inputs of block-scaled products are made as on the CPU, to the bit") {
  const auto device = test::test_device();
  for (auto dtype : {at::kHalf, at::kBFloat16})
    for (const auto& whole : {Tensor(), at::full({1}, 0.03f)}) {
      auto x = inputs(dtype);
      auto got = quant::scaled_inputs(x.to(device), whole.defined() ? whole.to(device) : whole);
      auto wanted = quant::scaled_inputs(x, whole);
      CHECK(at::equal(bytes(got.values), bytes(wanted.values)));
      CHECK(at::equal(bytes(got.scales), bytes(wanted.scales)));
    }
}

TEST_CASE("any device: block-scaled products are those of the rounded factors, or there are none") {
  const auto device = test::test_device();
  CHECK_FALSE(quant::has_block_products(at::kCPU, true));
  auto w = at::randn({96, in}) / 10, bias = at::randn({96}).to(at::kBFloat16);
  for (const auto& packed : {quant::to_nvfp4(w), quant::to_mxfp8(w)}) {
    const bool four = packed.encoding == &quant::nvfp4();
    const bool has = quant::has_block_products(device, four);
    auto there = packed.to(device);
    auto x = inputs(at::kBFloat16).clamp(-20, 20).unsqueeze(0).to(device);
    auto y = there.encoding->product(x, there, bias.to(device));
    REQUIRE(y.defined() == has);
    CHECK(packed.encoding->rests_packed_for(device) == has);
    CHECK_FALSE(packed.encoding->decoded()->product(x, there, {}).defined());
    CHECK_FALSE(packed.encoding->decoded()->rests_packed_for(device));
    if (!has) continue;
    auto exact =
        at::linear(x.to(at::kFloat), quant::decode(there, at::kFloat), bias.to(device, at::kFloat));
    CHECK(((y.to(at::kFloat) - exact).norm() / exact.norm()).item<double>() < (four ? 0.15 : 0.04));
  }
}

TEST_CASE("block-scaled weights that must not be multiplied are so again when they are read") {
  for (const auto* encoding : {&quant::nvfp4(), &quant::mxfp8()}) {
    const auto* decoded = encoding->decoded();
    const bool another = decoded != encoding && decoded->decoded() == decoded;
    CHECK(another);
    const bool same = &quant::encoding_of_marker(decoded->marker(), "file", "w") == decoded &&
                      &quant::encoding_of_marker(encoding->marker(), "file", "w") == encoding;
    CHECK(same);
    const bool rows_too = decoded->from_row(128, {256, 64}) == decoded;
    CHECK(rows_too);
  }
}

TEST_CASE("CUDA kernel of scaled inputs compiles for every architecture and type") {
  if (!device::cuda::has_compiler()) {
    MESSAGE("NVRTC is not there");
    return;
  }
  for (const char* target : {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"})
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      for (const char* four : {" -DFOUR=0", " -DFOUR=1"}) {
        CAPTURE(target);
        CHECK_NOTHROW(
            device::cuda::try_compile(quant::cuda::scaled_inputs_source(), target,
                                      device::cuda::define_of(dtype) + std::string(four)));
      }
}
