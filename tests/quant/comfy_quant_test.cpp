// Every format of ComfyUI's "comfy_quant" against what its own package makes of the same bytes.
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include "distorch/quant/block_scaled.h"
#include "distorch/quant/codebook4.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/int8.h"
#include "distorch/quant/int8_activated.h"
#include "distorch/quant/nibbles.h"
#include "distorch/quant/quantize.h"
#include "distorch/quant/rotation.h"
#include "distorch/quant/signed4.h"
#include "tests/support/devices.h"
#include "tests/support/dump.h"

using namespace distorch;
using at::Tensor;
using quant::Packed;

namespace {

const test::Dump& dump() {
  static const auto one = test::load_dump("comfy_quant");
  return one;
}

Tensor of(const std::string& name) { return dump().at(name); }

Tensor whole(const std::string& name) { return of(name).view(at::kChar); }

Packed packed_nvfp4() {
  return {&quant::nvfp4(),
          of("nvfp4.values"),
          {of("nvfp4.scale").view(at::kFloat8_e4m3fn), of("nvfp4.whole"), {}, {}},
          {136, 96}};
}

Packed packed_mxfp8() {
  return {&quant::mxfp8(),
          of("mxfp8.values").view(at::kFloat8_e4m3fn),
          {of("mxfp8.scale").view(at::kFloat8_e8m0fnu), {}},
          {136, 64}};
}

Packed packed_int8(int rotated) {
  return {&quant::int8_tensorwise(rotated), whole("int8.values"), {of("int8.scale")}, {8, 512}};
}

Packed packed_w4a8(int group) {
  const auto name = "w4a8_" + std::to_string(group);
  auto codebook = dump().contains(name + ".codebook") ? of(name + ".codebook") : Tensor();
  return {&quant::asym_w4a8_int8(group, 256),
          whole(name + ".values"),
          {of(name + ".relative").view(at::kFloat8_e4m3fn), of(name + ".channel"), codebook, {}},
          {8, 512}};
}

Packed packed_w4a4() {
  return {&quant::convrot_w4a4(256), whole("w4a4.values"), {of("w4a4.scale")}, {8, 512}};
}

/// The bits of `got` are those of the dumped bytes.
bool same_bits(const Tensor& got, const Tensor& wanted) {
  auto bytes = [](const Tensor& t) { return t.contiguous().flatten().view(at::kByte); };
  return at::equal(bytes(got), bytes(wanted));
}

bool same_bits(const Tensor& got, const std::string& name) { return same_bits(got, of(name)); }

void check_bits(const Packed& packed, const std::string& name) {
  CHECK(same_bits(quant::decode(packed, at::kFloat), name + ".f32"));
  CHECK(same_bits(quant::decode(packed, at::kHalf), name + ".f16"));
  CHECK(same_bits(quant::decode(packed, at::kBFloat16), name + ".bf16"));
}

/// Every row of y within `tolerance` of its largest number.
void check_rows(const Tensor& y, const Tensor& wanted, double tolerance) {
  REQUIRE(y.sizes() == wanted.sizes());
  auto scale = at::amax(wanted.abs(), {1}, true).clamp_min(1e-30);
  CHECK(at::amax((y - wanted).abs() / scale).item<double>() <= tolerance);
}

Tensor product(const Packed& packed, const Tensor& x, const Tensor& bias) {
  return packed.encoding->product(x, packed, bias);
}

}  // namespace

TEST_CASE("comfy_quant: nvfp4, mxfp8 and int8 are decoded bit by bit, in every type") {
  check_bits(packed_nvfp4(), "nvfp4");
  check_bits(packed_mxfp8(), "mxfp8");
  check_bits(packed_int8(0), "int8");
}

TEST_CASE("comfy_quant: scales may lie as bytes") {
  auto four = packed_nvfp4(), eight = packed_mxfp8();
  four.parts[0] = four.parts[0].view(at::kByte);
  eight.parts[0] = eight.parts[0].view(at::kByte);
  check_bits(four, "nvfp4");
  check_bits(eight, "mxfp8");
}

TEST_CASE("comfy_quant: any rows of blocked scales, also rows of rows") {
  for (const auto& packed : {packed_nvfp4(), packed_mxfp8(), packed_w4a8(16), packed_int8(64)}) {
    auto all = quant::decode(packed, at::kFloat);
    for (auto [first, count] : {std::pair(0, 8), std::pair(3, 4), std::pair(7, 1)})
      CHECK(at::equal(quant::decode(packed.rows(first, count), at::kFloat),
                      all.narrow(0, first, count)));
  }
  for (const auto& packed : {packed_nvfp4(), packed_mxfp8()}) {
    auto all = quant::decode(packed, at::kFloat);
    for (auto [first, count] : {std::pair(5, 131), std::pair(127, 2), std::pair(128, 8)}) {
      auto some = packed.rows(first, count);
      CHECK(at::equal(quant::decode(some, at::kFloat), all.narrow(0, first, count)));
      CHECK(at::equal(quant::decode(some.rows(1, count - 1), at::kFloat),
                      all.narrow(0, first + 1, count - 1)));
    }
  }
}

TEST_CASE("comfy_quant: rotated weights are rotated back; the matrix is its own inverse") {
  for (int group : {256, 64})
    CHECK(test::relative_error(quant::decode(packed_int8(group), at::kFloat),
                               of("int8_" + std::to_string(group) + ".f32")) < 1e-6);
  for (int group : {4, 16, 64, 256, 1024}) {
    auto matrix = quant::rotation_matrix(group);
    CHECK(test::relative_error(matrix.mm(matrix), at::eye(group)) < 1e-5);
    auto x = at::randn({3, 2048});
    auto by_matrix = at::matmul(x.view({3, -1, group}), matrix).view({3, 2048});
    CHECK(test::relative_error(quant::rotated(x, group), by_matrix) < 1e-5);
    CHECK(test::relative_error(quant::rotated(quant::rotated(x, group), group), x) < 1e-5);
  }
}

TEST_CASE(
    "comfy_quant: products of whole numbers are ComfyUI's, to the bit where none is rotated") {
  auto x = of("x"), bias = of("bias");
  check_rows(product(packed_int8(0), x, bias), of("int8.y"), 1e-6);
  auto one = packed_int8(0);
  one.parts[0] = one.parts[0].select(0, 0).squeeze();
  check_rows(product(one, x, {}), of("int8_one.y"), 1e-6);
  // Rotated inputs differ in their last bits, so that one may be rounded the other way.
  for (int group : {256, 64})
    check_rows(product(packed_int8(group), x, bias), of("int8_" + std::to_string(group) + ".y"),
               3e-3);
}

TEST_CASE("comfy_quant: four bits of a code book and signed four bits") {
  auto x = of("x"), bias = of("bias");
  for (int group : {16, 4, 32}) {
    const auto name = "w4a8_" + std::to_string(group);
    auto packed = packed_w4a8(group);
    auto levels = packed.parts[2].defined() ? packed.parts[2] : at::arange(-8, 8, at::kFloat);
    CHECK(at::equal(
        quant::nibbles_by_table(packed.values, packed.parts[0].to(at::kFloat), levels, group),
        whole(name + ".whole")));
    check_rows(product(packed, x, bias), of(name + ".y"), 3e-3);
  }
  CHECK(test::relative_error(quant::decode(packed_w4a8(16), at::kFloat), of("w4a8_16.f32")) < 1e-6);
  CHECK(test::relative_error(quant::decode(packed_w4a4(), at::kFloat), of("w4a4.f32")) < 1e-6);
  check_rows(product(packed_w4a4(), x, bias), of("w4a4.y"), 5e-2);
}

TEST_CASE("comfy_quant: products in half types, of more dimensions and with strange numbers") {
  auto x = of("x").narrow(0, 0, 4), bias = of("bias");
  auto wanted = product(packed_int8(256), x, bias);
  for (auto [dtype, tolerance] : {std::pair(at::kHalf, 2e-2), std::pair(at::kBFloat16, 5e-2)}) {
    auto y = product(packed_int8(256), x.to(dtype), bias.to(dtype));
    const bool same = y.scalar_type() == dtype;
    CHECK(same);
    check_rows(y.to(at::kFloat), wanted, tolerance);
  }
  CHECK(at::equal(product(packed_int8(256), x.view({2, 2, 512}), bias), wanted.view({2, 2, 8})));
  auto strange = x.clone();
  strange[0][3] = std::numeric_limits<float>::quiet_NaN();
  strange[2][9] = std::numeric_limits<float>::infinity();
  auto y = product(packed_int8(0), strange, {});
  CHECK(at::isnan(y[0]).all().item<bool>());
  CHECK(at::isnan(y[2]).all().item<bool>());
  CHECK(at::isfinite(y[1]).all().item<bool>());
  CHECK(product(packed_int8(0), at::zeros({0, 512}), {}).size(0) == 0);
}

TEST_CASE("comfy_quant: numbers are packed as ComfyUI packs them") {
  auto w = of("w");
  auto bytes = [&](const Packed& made, const std::string& name) {
    // ComfyUI fills some up with rows of zeros.
    auto wanted = of("made." + name + ".values").narrow(0, 0, w.size(0));
    CHECK(same_bits(made.values, wanted));
    CHECK(same_bits(made.parts[0], "made." + name + "_scale"));
  };
  bytes(quant::to_int8(w, false, 0), "int8");
  bytes(quant::to_int8(w, true, 0), "int8_rows");
  bytes(quant::to_nvfp4(w), "nvfp4");
  CHECK(same_bits(quant::to_nvfp4(w).parts[1], "made.nvfp4_scale_2"));
  bytes(quant::to_mxfp8(w), "mxfp8");
  // A rotated number may be rounded the other way.
  auto rotated = quant::to_int8(w, true, 256);
  auto steps = rotated.values.to(at::kInt) - whole("made.int8_rotated.values").to(at::kInt);
  CHECK(steps.abs().max().item<int>() <= 1);
  CHECK(steps.ne(0).sum().item<int>() < 8);
  CHECK(test::relative_error(rotated.parts[0], of("made.int8_rotated_scale")) < 1e-6);
  auto fours = quant::signed_nibbles(quant::to_convrot_w4a4(w, 256).values).to(at::kInt) -
               quant::signed_nibbles(whole("made.w4a4.values")).to(at::kInt);
  CHECK(fours.abs().max().item<int>() <= 1);
  CHECK(fours.ne(0).sum().item<int>() < 8);
}

TEST_CASE("comfy_quant: what is packed here is near the numbers it was made of") {
  auto w = of("w").narrow(0, 8, 16);
  auto error = [&](const Packed& packed) {
    auto back = quant::decode(packed, at::kFloat);
    return ((back - w).norm() / w.norm()).item<double>();
  };
  CHECK(error(quant::to_int8(w, true, 256)) < 0.012);
  CHECK(error(quant::to_float8(w, at::kFloat8_e4m3fn)) < 0.03);
  CHECK(error(quant::to_float8(w, at::kFloat8_e5m2)) < 0.06);
  CHECK(error(quant::to_nvfp4(w)) < 0.11);
  CHECK(error(quant::to_mxfp8(w)) < 0.03);
  CHECK(error(quant::to_convrot_w4a4(w, 256)) < 0.2);
}

TEST_CASE("any device: packed weights are decoded and multiplied as on the CPU") {
  const auto device = test::test_device();
  auto x = of("x"), bias = of("bias");
  const std::vector<Packed> all = {packed_nvfp4(),   packed_mxfp8(),  packed_int8(0),
                                   packed_int8(256), packed_int8(64), packed_w4a8(16),
                                   packed_w4a8(4),   packed_w4a4()};
  for (const auto& packed : all) {
    CAPTURE(std::string(packed.encoding->name()));
    auto there = packed.to(device);
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      auto wanted = quant::decode(packed, dtype).to(at::kFloat);
      auto got = quant::decode(there, dtype).cpu().to(at::kFloat);
      if (packed.encoding == &quant::nvfp4() || packed.encoding == &quant::mxfp8())
        CHECK(at::equal(got, wanted));
      else
        CHECK(test::relative_error(got, wanted) < (dtype == at::kFloat ? 1e-6 : 1e-2));
    }
    if (!packed.encoding->rests_packed()) continue;
    const double tolerance = packed.encoding == &quant::convrot_w4a4(256) ? 5e-2 : 3e-3;
    check_rows(product(there, x.to(device), bias.to(device)).cpu(), product(packed, x, bias),
               tolerance);
    auto half = product(there, x.to(device, at::kBFloat16), bias.to(device, at::kBFloat16));
    check_rows(
        half.cpu().to(at::kFloat).narrow(0, 0, 4),
        product(packed, x.to(at::kBFloat16), bias.to(at::kBFloat16)).to(at::kFloat).narrow(0, 0, 4),
        10 * tolerance);
  }
}

TEST_CASE("any device: whole numbers of what is activated are those of two operations") {
  using device::Activation;
  const auto device = test::test_device();
  const auto packed = packed_int8(256).to(device);
  const auto numbers = quant::whole_numbers(packed);
  REQUIRE(numbers.has_value());
  CHECK_FALSE(quant::whole_numbers(packed_w4a4()).has_value());
  auto generator = at::make_generator<at::CPUGeneratorImpl>(11);
  for (auto dtype : {at::kFloat, at::kBFloat16})
    for (bool gated : {false, true})
      for (std::int64_t behind : {0, 256}) {
        CAPTURE(c10::toString(dtype));
        CAPTURE(gated);
        CAPTURE(behind);
        const auto activation = gated ? Activation::SwiGlu : Activation::GeluTanh;
        auto left = behind ? at::randn({2, 3, behind}, generator).to(device, dtype) : Tensor();
        auto longer = at::randn({2, 3, 16 + (512 - behind) * (gated ? 2 : 1)}, generator);
        auto x = longer.to(device, dtype).narrow(2, 16, longer.size(2) - 16);
        auto bias = of("bias").to(device, dtype);
        auto got = quant::int8_linear_activated(left, x, activation, *numbers, bias);
        auto wanted = quant::int8_linear(device::activated(left, x, activation), *numbers, bias);
        check_rows(got.flatten(0, 1).cpu().to(at::kFloat),
                   wanted.flatten(0, 1).cpu().to(at::kFloat), dtype == at::kFloat ? 3e-3 : 3e-2);
      }
}
