#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/cuda/nvrtc.h"
#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf.h"
#include "distorch/quant/gguf_cuda.h"
#include "distorch/quant/gguf_decode.h"
#include "distorch/quant/gguf_in_half.h"
#include "tests/support/devices.h"
#include "tests/support/dump.h"

using namespace distorch;
using at::Tensor;

namespace {

std::vector<const formats::BlockType*> half_types() {
  std::vector<const formats::BlockType*> types;
  for (const auto& type : formats::block_types())
    if (quant::has_half_steps(type.name)) types.push_back(&type);
  return types;
}

/// The first and the last blocks of the dump, which are ordinary and wild ones.
Tensor blocks_of(const test::Dump& dump, const formats::BlockType& type) {
  const auto& all = dump.at(std::string(type.name) + ".blocks");
  return at::cat({all.narrow(0, 0, 4), all.narrow(0, all.size(0) - 4, 4)});
}

/// Whether all bits are the same, those of any NaN.
bool same_numbers(const Tensor& a, const Tensor& b) {
  auto bits = [](const Tensor& t) {
    return at::where(t.isnan(), at::full({}, 1, at::kInt), t.contiguous().view(at::kInt));
  };
  return at::equal(bits(a), bits(b));
}

}  // namespace

TEST_CASE("gguf in half: the numbers that ComfyUI-GGUF computes by default") {
  const auto blocks = test::load_dump("gguf_blocks"), wanted = test::load_dump("gguf_half");
  CHECK(half_types().size() == 12);
  for (const auto* type : half_types()) {
    CAPTURE(type->name);
    const auto given = blocks_of(blocks, *type);
    const auto& numbers = wanted.at(std::string(type->name) + ".numbers");
    const auto got = quant::decode_in_half(given.flatten(), static_cast<int>(type->id));
    CHECK(same_numbers(got.view(numbers.sizes()), numbers));
    // Ordinary ones are near the exact numbers, and not all the same.
    const auto exact = quant::decode_blocks(given.narrow(0, 0, 4).flatten(),
                                            static_cast<int>(type->id), at::kFloat);
    const auto near = got.narrow(0, 0, exact.numel());
    CHECK(test::relative_error(near, exact) < 2e-3);
    CHECK_FALSE(at::equal(near, exact));
  }
}

TEST_CASE(
    "gguf in half: an encoding that decodes so, whole and row by row, rounded further or not") {
  const auto* type = formats::block_type_named("Q4_K");
  const auto* plain = quant::encoding_named("Q4_K");
  const auto* in_half = quant::gguf_in_half(plain);
  REQUIRE(in_half);
  CHECK(in_half == quant::gguf_in_half(plain));
  CHECK(in_half != plain);
  CHECK(in_half != quant::gguf_rounded_to(plain, at::kHalf));
  CHECK(quant::gguf_in_half(quant::encoding_named("IQ2_S")) == nullptr);
  CHECK(quant::gguf_in_half(nullptr) == nullptr);
  const auto bytes = blocks_of(test::load_dump("gguf_blocks"), *type).narrow(0, 0, 4).contiguous();
  const quant::Packed weight{in_half, bytes, {}, {4, 256}};
  const auto numbers = quant::decode_in_half(bytes.flatten(), static_cast<int>(type->id));
  CHECK(at::equal(quant::decode(weight, at::kFloat).flatten(), numbers));
  CHECK(at::equal(quant::decode(weight.rows(1, 2), at::kFloat).flatten(),
                  numbers.narrow(0, 256, 512)));
  auto further = weight;
  further.encoding = quant::gguf_in_half(plain, at::kBFloat16);
  CHECK(at::equal(quant::decode(further, at::kFloat).flatten(),
                  numbers.to(at::kBFloat16).to(at::kFloat)));
}

TEST_CASE("gguf in half: other types and broken blocks are refused, meta tensors have shapes") {
  const auto meta = at::empty({144 * 3}, at::TensorOptions().dtype(at::kByte).device(at::kMeta));
  CHECK(quant::decode_in_half(meta, 12).numel() == 768);
  CHECK(quant::decode_in_half(at::empty({0}, at::kByte), 12).numel() == 0);
  CHECK_THROWS_AS(quant::decode_in_half(at::zeros({143}, at::kByte), 12), Error);
  CHECK_THROWS_AS(quant::decode_in_half(at::zeros({144}, at::kByte), 0), Error);
  const auto iq2_s = static_cast<int>(formats::block_type_named("IQ2_S")->id);
  CHECK_THROWS_AS(quant::decode_in_half(at::zeros({82}, at::kByte), iq2_s), Error);
  CHECK_THROWS_AS(quant::decode_in_half(at::zeros({144}, at::kByte), 12, at::kInt), Error);
}

TEST_CASE("gguf in half: the CUDA kernel compiles") {
  if (!device::cuda::has_compiler()) return;
  for (const auto* type : half_types())
    CHECK_NOTHROW(device::cuda::try_compile(quant::block_kernel(), "sm_80",
                                            quant::block_kernel_options(*type, at::kFloat, true)));
}

TEST_CASE("any device: gguf blocks in half give the numbers of the host") {
  const auto device = test::test_device();
  const auto dump = test::load_dump("gguf_blocks");
  for (const auto* type : half_types()) {
    CAPTURE(type->name);
    const auto given = blocks_of(dump, *type).flatten();
    const auto id = static_cast<int>(type->id);
    for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16})
      CHECK(same_numbers(quant::decode_in_half(given.to(device), id, dtype).cpu().to(at::kFloat),
                         quant::decode_in_half(given, id).to(dtype).to(at::kFloat)));
  }
}
