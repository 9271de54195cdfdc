#include "distorch/quant/bf16_planes.h"

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "tests/support/devices.h"

using namespace distorch;
using at::Tensor;

// On a real device this is the kernel of our own, with rows that it reads by eights and others.
TEST_CASE("any device: packed bf16 comes back with every bit") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(4);
  for (auto shape : std::vector<std::vector<std::int64_t>>{
           {64, 3072}, {33, 4104}, {16, 12288}, {7, 131}, {16, 8, 3, 3}, {2, 20000}}) {
    CAPTURE(shape[1]);
    auto weight = (at::randn(shape, generator) * 0.02).to(at::kBFloat16);
    auto bits = weight.flatten(1).view(at::kShort);
    // Numbers that no table has: NaN, infinity, a denormal, the largest.
    for (std::int64_t i = 0; i < 4; ++i)
      bits[i % shape[0]][17 * i + 1] = std::array{0x7fc1, -0x80, 3, 0x7f7f}[i];
    auto packed = quant::pack_bf16(weight);
    REQUIRE(packed);
    auto there = packed->to(device);
    auto same = [&](const quant::Packed& from, const Tensor& wanted) {
      return at::equal(quant::decode(from, at::kBFloat16).cpu().view(at::kShort),
                       wanted.contiguous().view(at::kShort));
    };
    CHECK(same(there, weight));
    CHECK(same(there.rows(1, shape[0] - 1), weight.narrow(0, 1, shape[0] - 1)));
  }
}
