#include "distorch/quant/four_bit.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include <cmath>

#include "distorch/base/error.h"
#include "tests/support/devices.h"

using namespace distorch;
using at::Tensor;
using quant::Packed;
using quant::QuantState;

namespace {

// The published table of NF4.
const std::vector<float> kNf4 = {-1.0f,
                                 -0.6961928009986877f,
                                 -0.5250730514526367f,
                                 -0.39491748809814453f,
                                 -0.28444138169288635f,
                                 -0.18477343022823334f,
                                 -0.09105003625154495f,
                                 0.0f,
                                 0.07958029955625534f,
                                 0.16093020141124725f,
                                 0.24611230194568634f,
                                 0.33791524171829224f,
                                 0.44070982933044434f,
                                 0.5626170039176941f,
                                 0.7229568362236023f,
                                 1.0f};

/// Random codes and magnitudes in the form of a file.
Packed random(const QuantState& state, int seed = 5) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const auto numbers = state.numbers(), blocks = (numbers + state.block - 1) / state.block;
  auto bytes = [&](std::int64_t count) {
    return at::randint(0, 256, {count}, generator).to(at::kByte);
  };
  auto map = at::tensor(kNf4);
  auto absmax = at::rand({blocks}, generator) * 0.2;
  Tensor nested, nested_map;
  if (state.nested_block) {
    absmax = bytes(blocks);
    nested = at::rand({(blocks + state.nested_block - 1) / state.nested_block}, generator) * 0.1;
    nested_map = at::linspace(-1, 1, 256, at::kFloat);
  }
  return {&quant::four_bit(state),
          bytes((numbers + 1) / 2).view({-1, 1}),
          {absmax, map, Tensor(), nested, nested_map},
          state.shape};
}

/// The formula, number by number in float32.
Tensor by_formula(const Packed& weight, const QuantState& state) {
  auto out = at::empty({state.numbers()});
  auto* to = out.mutable_data_ptr<float>();
  const auto* codes = weight.values.const_data_ptr<std::uint8_t>();
  for (std::int64_t i = 0; i < state.numbers(); ++i) {
    const int code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
    const auto block = i / state.block;
    float magnitude = 0;
    if (state.nested_block) {
      const auto byte = weight.parts[0].const_data_ptr<std::uint8_t>()[block];
      magnitude = weight.parts[4].const_data_ptr<float>()[byte];
      magnitude *= weight.parts[3].const_data_ptr<float>()[block / state.nested_block];
      magnitude += static_cast<float>(state.nested_offset);
    } else {
      magnitude = weight.parts[0].const_data_ptr<float>()[block];
    }
    to[i] = kNf4[code] * magnitude;
  }
  return out.view(state.shape);
}

const QuantState kPlain{{24, 192}, 64, 0, 0};
const QuantState kNested{{24, 192}, 64, 8, 0.04};
const QuantState kAcross{{9, 50}, 64, 0, 0};

}  // namespace

TEST_CASE("four bits: table times magnitude, plain and nested, in every type, bit for bit") {
  for (const auto& state : {kPlain, kNested, kAcross}) {
    auto weight = random(state);
    auto wanted = by_formula(weight, state);
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      CHECK(at::equal(quant::decode(weight, dtype), wanted.to(dtype)));
    auto x = at::randn({3, state.shape[1]}, at::make_generator<at::CPUGeneratorImpl>(7));
    CHECK(at::equal(quant::linear(x, weight, {}), at::linear(x, wanted)));
    // Rows, and rows of rows.
    auto rows = weight.rows(3, 5);
    CHECK(at::equal(quant::decode(rows, at::kFloat), wanted.narrow(0, 3, 5)));
    CHECK(at::equal(quant::decode(rows.rows(1, 2), at::kFloat), wanted.narrow(0, 4, 2)));
  }
}

TEST_CASE("four bits: a simulated device computes it, dry runs know its shape") {
  sim::install(test::small_rig(1));
  const c10::Device device(c10::DeviceType::PrivateUse1, 0);
  auto weight = random(kNested);
  auto there = weight.to(device);
  CHECK(at::equal(quant::decode(there, at::kHalf).cpu(), quant::decode(weight, at::kHalf)));
  sim::DryScope dry;
  CHECK(quant::decode(there, at::kBFloat16).sizes() == at::IntArrayRef(kNested.shape));
}

TEST_CASE("four bits: quant states are read, and refused with their fault") {
  auto state = quant::read_quant_state(
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [32, 128],)"
      R"( "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05})",
      "here");
  CHECK(state.shape == std::vector<std::int64_t>{32, 128});
  CHECK(state.block == 64);
  CHECK(state.nested_block == 256);
  CHECK(state.nested_offset == 0.05);
  CHECK(state.goes_by_rows());
  auto fault = [](const char* text) {
    try {
      quant::read_quant_state(text, "f: 'w'");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  CHECK(fault("[") == "f: 'w': its quant_state is no JSON object");
  CHECK(fault("{}") == "f: 'w': its quant_state has no 'shape'");
  CHECK(fault(R"({"shape": [4, -1]})").find("cannot be: [4,-1]") != std::string::npos);
  CHECK(fault(R"({"shape": [4611686018427387904, 4]})").find("cannot be") != std::string::npos);
  CHECK(fault(R"({"shape": [4, 4], "blocksize": 0})").find("blocksize of 0") != std::string::npos);
  CHECK_THROWS_WITH_AS(quant::check_sizes(state, {.bytes = 2048, .absmax = 63}, "f: 'w'"),
                       doctest::Contains("its absmax has 63 elements where 64 are needed"), Error);
}
