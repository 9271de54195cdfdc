#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <hwy/targets.h>

#include <cmath>
#include <memory>

#include "distorch/convert/blocks.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/quant/gguf_decode.h"
#include "distorch/weights/checkpoint.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using at::Tensor;

namespace {

Tensor stored(const weights::Checkpoint& file, const std::string& name) {
  REQUIRE(file.find(name));
  return weights::read_dense(*file.find(name), at::kFloat);
}

/// How much ggml lets each number count (tests/parity/make_gguf_quants.py).
Tensor weight(const Tensor& x, const std::string& type) {
  if (type == "Q4_K" || type == "Q5_K") {
    const auto parts = x.view({-1, 32});
    return (parts.square().mean({1}, true).sqrt() + parts.abs()).view(x.sizes());
  }
  if (type == "Q2_K") return x.abs();
  return type == "Q3_K" || type == "Q6_K" ? x.square() : at::ones_like(x);
}

double lost(const Tensor& x, const Tensor& got, const Tensor& w) {
  return ((w * (got - x).square()).sum() / (w * x.square()).sum()).sqrt().item<double>();
}

Tensor packed(const convert::BlockType& type, const Tensor& x) {
  const auto count = x.numel() / type.numbers;
  auto bytes = at::empty({count * type.bytes}, at::kByte);
  CHECK(type.pack(x.const_data_ptr<float>(), bytes.mutable_data_ptr<std::uint8_t>(), count));
  return bytes;
}

}  // namespace

TEST_CASE("blocks: no type loses more than ggml's quantiser, plainly and by ggml's weights") {
  const weights::Checkpoint file(std::make_shared<formats::TensorFile>(
      formats::open_tensor_file(test::parity_dir() / "gguf_quants.safetensors")));
  for (const auto& type : convert::block_types()) {
    if (!type.pack) continue;
    for (const char* kind : {"normal", "heavy", "uneven"}) {
      CAPTURE(type.name);
      CAPTURE(kind);
      const auto x = stored(file, kind);
      const auto theirs = stored(file, std::string(kind) + "." + type.name);
      const auto got =
          quant::decode_blocks(packed(type, x), type.ggml_type, at::kFloat).view(x.sizes());
      const auto wide = x.to(at::kDouble), read = got.to(at::kDouble);
      CHECK(lost(wide, read, at::ones_like(wide)) <= theirs[0].item<double>() * 1.0001);
      CHECK(lost(wide, read, weight(wide, type.name)) <= theirs[1].item<double>() * 1.0001);
    }
  }
}

TEST_CASE("blocks: any number of them gives the same bytes, and numbers that are none are told") {
  const auto x = at::randn({7 * 256});
  for (const auto& type : convert::block_types()) {
    if (!type.pack) continue;
    CAPTURE(type.name);
    const auto all = packed(type, x);
    const auto one = packed(type, x.narrow(0, 5 * 256, 256));
    CHECK(at::equal(all.narrow(0, 5 * one.numel(), one.numel()), one));
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(type.bytes));
    for (float strange : {NAN, INFINITY, -INFINITY, 1e30f}) {
      auto numbers = x.narrow(0, 0, 256).clone();
      numbers[11] = strange;
      CHECK_FALSE(type.pack(numbers.const_data_ptr<float>(), bytes.data(), 1));
    }
  }
}

TEST_CASE("blocks: they do not depend on how wide the processor's vectors are") {
  const auto x = at::randn({9 * 256});
  for (const auto& type : convert::block_types()) {
    if (!type.pack) continue;
    CAPTURE(type.name);
    const auto best = packed(type, x);
    for (std::int64_t target : {std::int64_t{0}, std::int64_t{HWY_AVX2}, std::int64_t{HWY_AVX3}}) {
      CAPTURE(target);
      if (target != 0 && (hwy::SupportedTargets() & target) == 0) continue;
      hwy::GetChosenTarget().Update(target);
      const auto same = packed(type, x);
      hwy::GetChosenTarget().DeInit();
      CHECK(at::equal(same, best));
    }
  }
}
