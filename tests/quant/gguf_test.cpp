#include "distorch/quant/gguf.h"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/cuda/nvrtc.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf_cuda.h"
#include "distorch/quant/gguf_decode.h"
#include "distorch/quant/gguf_encode.h"
#include "tests/support/devices.h"
#include "tests/support/dump.h"

using namespace distorch;
using quant::Packed;

namespace {

std::vector<const formats::BlockType*> packed_types() {
  std::vector<const formats::BlockType*> types;
  for (const auto& type : formats::block_types())
    if (!type.plain) types.push_back(&type);
  return types;
}

/// The bits of float32 numbers, those of every NaN alike.
at::Tensor bits_of(const at::Tensor& numbers) {
  constexpr std::int32_t nan = 0x7FC00000;
  auto bits = numbers.contiguous().view(at::kInt);
  return at::where(numbers.isnan(), at::full({}, nan, at::kInt), bits);
}

at::Tensor random_blocks(const formats::BlockType& type, std::int64_t count) {
  return at::randint(0, 256, {count * type.bytes}, at::kByte);
}

/// Blocks whose every number is finite: scales as files have them.
at::Tensor ordinary_blocks(const test::Dump& dump, const formats::BlockType& type) {
  return dump.at(std::string(type.name) + ".blocks").narrow(0, 0, 24).contiguous();
}

}  // namespace

TEST_CASE("gguf: every type is decoded to the very bits of the reference") {
  const auto dump = test::load_dump("gguf_blocks");
  for (const auto* type : packed_types()) {
    const std::string name = type->name;
    CAPTURE(name);
    const auto& blocks = dump.at(name + ".blocks");
    REQUIRE(blocks.size(1) == type->bytes);
    auto numbers = quant::decode_blocks(blocks.view({-1}), static_cast<int>(type->id), at::kFloat)
                       .view({blocks.size(0), type->elements});
    const auto kept = dump.at(name + ".kept").to(at::kLong);
    CHECK(at::equal(bits_of(numbers.index_select(0, kept)), bits_of(dump.at(name + ".numbers"))));
    // All of them, in one sum.
    const auto unsigned_bits = bits_of(numbers).to(at::kLong).bitwise_and(0xFFFFFFFF);
    CHECK(unsigned_bits.sum().item<std::int64_t>() == dump.at(name + ".sum").item<std::int64_t>());
  }
}

TEST_CASE("gguf: half types are the float32 numbers rounded once, to even") {
  for (const auto* type : packed_types())
    for (auto dtype : {at::kBFloat16, at::kHalf}) {
      const std::string name = type->name;
      CAPTURE(name);
      auto blocks = random_blocks(*type, 300);
      auto wanted = quant::decode_blocks(blocks, static_cast<int>(type->id), at::kFloat).to(dtype);
      auto got = quant::decode_blocks(blocks, static_cast<int>(type->id), dtype);
      CHECK((got.scalar_type() == dtype));
      CHECK(at::equal(got.isnan(), wanted.isnan()));
      CHECK(at::equal(at::nan_to_num(got), at::nan_to_num(wanted)));
    }
}

TEST_CASE("gguf: all float16 numbers come out of a scale of one in their own type") {
  // Q8_0 with numbers 1 and scales of every bit pattern.
  auto blocks = at::ones({65536, 34}, at::kByte);
  auto bits = at::arange(65536, at::kInt);
  blocks.select(1, 0).copy_(bits.bitwise_and(255));
  blocks.select(1, 1).copy_(at::div(bits, 256, "floor"));
  auto scales = bits.to(at::kShort).view(at::kHalf);
  for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    auto numbers = quant::decode_blocks(blocks.view({-1}), 8, dtype).view({65536, 32}).select(1, 7);
    auto wanted = scales.to(at::kFloat).to(dtype);
    CHECK(at::equal(numbers.isnan(), wanted.isnan()));
    CHECK(at::equal(at::nan_to_num(numbers), at::nan_to_num(wanted)));
  }
}

TEST_CASE("gguf: rows, matrices and kernels of a packed weight") {
  const auto dump = test::load_dump("gguf_blocks");
  const auto* type = formats::block_type_named("Q4_0");
  const auto* encoding = quant::encoding_named("Q4_0");
  REQUIRE(encoding != nullptr);
  auto bytes = ordinary_blocks(dump, *type).view({-1});
  // Six rows of four blocks.
  const std::vector<std::int64_t> shape{6, 128};
  Packed weight{
      encoding, bytes.view(quant::value_shape_of(*encoding, shape, bytes.numel())), {}, shape};
  CHECK(weight.values.sizes() == at::IntArrayRef({6, 72}));
  auto all = quant::decode(weight, at::kFloat);
  CHECK(at::equal(quant::decode(weight.rows(2, 3), at::kFloat), all.narrow(0, 2, 3)));
  auto ids = at::tensor({4, 0, 4}, at::kLong);
  CHECK(at::equal(quant::rows_at(weight, ids, at::kFloat), all.index_select(0, ids)));
  auto through = weight;
  through.encoding = quant::gguf_rounded_to(encoding, at::kHalf);
  CHECK(at::equal(quant::decode(through, at::kFloat), all.to(at::kHalf).to(at::kFloat)));
  const bool others = encoding->rests_packed() && !quant::gguf_rounded_to(nullptr, at::kHalf);
  CHECK(others);
  auto x = at::randn({5, 128}), bias = at::randn({6});
  CHECK(at::allclose(quant::linear(x, weight, bias), at::linear(x, all, bias), 1e-5, 1e-5));
  CHECK((quant::decode(weight, at::kDouble).scalar_type() == at::kDouble));
  // A kernel whose rows are 24 elements: blocks go across rows.
  const std::vector<std::int64_t> kernel{32, 4, 3, 2};
  CHECK(quant::value_shape_of(*encoding, kernel, bytes.numel()) == std::vector<std::int64_t>{432});
  Packed across{encoding, bytes, {}, kernel};
  auto whole = quant::decode(across, at::kFloat);
  CHECK(at::equal(whole.flatten(), all.flatten()));
  CHECK(at::equal(quant::decode(across.rows(4, 8), at::kFloat), whole.narrow(0, 4, 8)));
  CHECK(at::equal(quant::decode(across.rows(3, 2), at::kFloat), whole.narrow(0, 3, 2)));
}

TEST_CASE("gguf: a product by tiles is that of the decoded weight") {
  // Two tiles and a bit of 64 MiB of float32 rows.
  constexpr std::int64_t in = 8192, out = 4500;
  const auto* encoding = quant::encoding_named("Q8_0");
  auto bytes = at::randint(0, 256, {out, in / 32 * 34}, at::kByte);
  auto blocks = bytes.view({-1, 34});
  blocks.narrow(1, 0, 2).copy_(at::full({}, 0.001, at::kHalf).view({1}).view(at::kByte));
  Packed weight{encoding, bytes, {}, {out, in}};
  auto x = at::randn({3, in});
  auto wanted = at::linear(x, quant::decode(weight, at::kFloat));
  CHECK(at::allclose(quant::linear(x, weight, {}), wanted, 1e-4, 1e-4));
}

TEST_CASE("gguf: the operator knows shapes without data and refuses broken blocks") {
  auto meta = at::empty({144 * 3}, at::TensorOptions().dtype(at::kByte).device(at::kMeta));
  auto shape = quant::decode_blocks(meta, 12, at::kBFloat16);
  CHECK((shape.is_meta() && shape.numel() == 768 && shape.scalar_type() == at::kBFloat16));
  CHECK(quant::decode_blocks(at::empty({0}, at::kByte), 12, at::kFloat).numel() == 0);
  CHECK_THROWS_AS(quant::decode_blocks(at::zeros({143}, at::kByte), 12, at::kFloat), Error);
  CHECK_THROWS_AS(quant::decode_blocks(at::zeros({144}, at::kByte), 0, at::kFloat), Error);
  CHECK_THROWS_AS(quant::decode_blocks(at::zeros({144}, at::kByte), 99, at::kFloat), Error);
  CHECK_THROWS_AS(quant::decode_blocks(at::zeros({144}, at::kByte), 12, at::kDouble), Error);
  CHECK_THROWS_AS(quant::decode_blocks(at::zeros({36}, at::kFloat), 12, at::kFloat), Error);
  CHECK_THROWS_AS(quant::encoding_named("Q4_K")->shape_of({2, 144}, {}), Error);
}

TEST_CASE("gguf: the CUDA kernel compiles for every generation of cards") {
  if (!device::cuda::has_compiler()) return;
  // All types for one of them, one type for all of them.
  for (const auto* type : packed_types())
    CHECK_NOTHROW(device::cuda::try_compile(quant::block_kernel(), "sm_80",
                                            quant::block_kernel_options(*type, at::kBFloat16)));
  for (const char* architecture : {"sm_75", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"})
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      CHECK_NOTHROW(device::cuda::try_compile(
          quant::block_kernel(), architecture,
          quant::block_kernel_options(*formats::block_type_named("IQ2_S"), dtype)));
}

TEST_CASE("any device: gguf blocks are decoded to the numbers of the host") {
  const auto device = test::test_device();
  const auto dump = test::load_dump("gguf_blocks");
  for (const auto* type : packed_types())
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      CAPTURE(type->name);
      auto blocks = dump.at(std::string(type->name) + ".blocks").view({-1});
      auto wanted = quant::decode_blocks(blocks, static_cast<int>(type->id), dtype);
      auto got = quant::decode_blocks(blocks.to(device), static_cast<int>(type->id), dtype).cpu();
      CHECK(at::equal(got.isnan(), wanted.isnan()));
      CHECK(at::equal(at::nan_to_num(got), at::nan_to_num(wanted)));
    }
}

TEST_CASE("gguf: numbers become blocks that stand for them within half a step") {
  auto x = at::randn({256 * 40});
  x.narrow(0, 256, 256).zero_();
  x.narrow(0, 512, 256).abs_();
  struct Case {
    const char* name;
    double error;  // beside the largest number of 32
  };
  for (const auto& [name, error] : {Case{"Q8_0", 0.005}, {"Q4_0", 0.13}, {"Q4_K", 0.2}}) {
    CAPTURE(name);
    const auto& type = *formats::block_type_named(name);
    auto blocks = quant::encode_blocks(x, static_cast<int>(type.id));
    CHECK(blocks.numel() == x.numel() / type.elements * type.bytes);
    auto back = quant::decode_blocks(blocks, static_cast<int>(type.id), at::kFloat);
    auto largest = x.view({-1, 32}).abs().amax({1}, true);
    auto off = ((back - x).view({-1, 32}).abs() - largest * error).max();
    CHECK(off.item<double>() <= 1e-6);
  }
}
