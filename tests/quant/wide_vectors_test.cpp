#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <hwy/targets.h>

#include <utility>
#include <vector>

#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf_cpu.h"
#include "distorch/quant/gguf_grids.h"
#include "distorch/quant/small_float_rounding.h"
#include "distorch/quant/small_floats.h"

using namespace distorch;
using at::Tensor;

namespace {

/// Kernels of one set of instructions as long as this lives, instead of the best there are.
class Instructions {
 public:
  explicit Instructions(std::int64_t target) { hwy::GetChosenTarget().Update(target); }
  ~Instructions() { hwy::GetChosenTarget().DeInit(); }
  Instructions(const Instructions&) = delete;
};

/// What this processor has of those that the kernels are compiled for, besides single numbers.
std::vector<std::int64_t> targets() {
  std::vector<std::int64_t> list;
  for (std::int64_t target : {HWY_AVX2, HWY_AVX3})
    if (hwy::SupportedTargets() & target) list.push_back(target);
  return list;
}

/// `past_caches`: written so. `moved`: to a place that no line of a cache begins at.
Tensor decoded(const formats::BlockType& type, const Tensor& blocks, quant::NumberKind kind,
               bool past_caches = false, bool moved = false) {
  const bool wide = kind == quant::NumberKind::Float;
  const auto count = blocks.numel() / type.bytes * type.elements;
  auto numbers = at::zeros({count + 1}, wide ? at::kInt : at::kShort).narrow(0, moved, count);
  const auto id = static_cast<int>(type.id);
  CHECK(quant::decode_on_cpu({.type = id,
                              .kind = kind,
                              .blocks = blocks.const_data_ptr<std::uint8_t>(),
                              .numbers = numbers.mutable_data_ptr(),
                              .count = blocks.numel() / type.bytes,
                              .grid = quant::grid_of(id).data(),
                              .past_caches = past_caches}));
  const auto dtype = wide                              ? at::kFloat
                     : kind == quant::NumberKind::Half ? at::kHalf
                                                       : at::kBFloat16;
  // Which NaN it is may differ.
  const auto strange = numbers.view(dtype).isnan();
  return numbers.masked_fill(strange, 1);
}

}  // namespace

TEST_CASE("wide vectors: blocks are the same numbers by every set of instructions, bit for bit") {
  for (const auto& type : formats::block_types()) {
    if (type.plain) continue;
    CAPTURE(type.name);
    const auto blocks = at::randint(0, 256, {100 * type.bytes}, at::kByte);
    for (auto kind :
         {quant::NumberKind::Float, quant::NumberKind::Half, quant::NumberKind::BFloat}) {
      Tensor plain;
      {
        const Instructions single(0);
        plain = decoded(type, blocks, kind);
      }
      for (auto target : targets()) {
        CAPTURE(target);
        const Instructions some(target);
        CHECK(at::equal(decoded(type, blocks, kind), plain));
        CHECK(at::equal(decoded(type, blocks, kind, true), plain));
        CHECK(at::equal(decoded(type, blocks, kind, true, true), plain));
      }
    }
  }
}

TEST_CASE("wide vectors: numbers of eight and four bits too") {
  const auto x = at::cat({at::randn({1008}), at::randn({16}) * 1e-3, at::zeros({16})});
  auto packed = [&] {
    auto bytes = at::zeros({1040 + 520 + 65}, at::kByte);
    auto* to = bytes.mutable_data_ptr<std::uint8_t>();
    quant::kernels::to_e4m3(x.const_data_ptr<float>(), to, 1040, 0.01f);
    quant::kernels::to_nvfp4({x.const_data_ptr<float>(), to + 1040, to + 1560, 1040, 0.002f});
    return bytes;
  };
  Tensor plain;
  {
    const Instructions single(0);
    plain = packed();
  }
  const auto wanted = (x / 0.01).clamp(-448, 448).to(at::kFloat8_e4m3fn).view(at::kByte);
  CHECK(at::equal(plain.narrow(0, 0, 1040), wanted));
  for (auto target : targets()) {
    const Instructions some(target);
    CHECK(at::equal(packed(), plain));
  }
}

TEST_CASE("wide vectors: codes of eight and four bits are torch's numbers times their factor") {
  using quant::SmallFloat;
  const auto bytes = at::arange(256, at::kInt).to(at::kByte);
  const auto fours = at::stack({bytes.bitwise_right_shift(4), bytes.bitwise_and(15)}, 1).flatten();
  const auto levels = at::tensor(
      {0., .5, 1., 1.5, 2., 3., 4., 6., -0., -.5, -1., -1.5, -2., -3., -4., -6.}, at::kFloat);
  const std::pair<SmallFloat, Tensor> all[] = {
      {SmallFloat::E4M3, bytes.view(at::kFloat8_e4m3fn).to(at::kFloat)},
      {SmallFloat::E5M2, bytes.view(at::kFloat8_e5m2).to(at::kFloat)},
      {SmallFloat::E2M1, levels.index({fours.to(at::kLong)})}};
  const float factors[] = {1.0f, 0.37f, -3e-5f, 1.7e38f, 0.0f, 1e-40f, 5.5f, 1.25f, 2.0f, 7.0f};
  std::vector<std::pair<std::int64_t, bool>> ways;
  for (bool past_caches : {false, true}) {
    ways.emplace_back(0, past_caches);
    for (auto target : targets()) ways.emplace_back(target, past_caches);
  }
  for (const auto& [type, numbers] : all)
    for (std::int64_t run : {512, 100, 32, 16, 2})  // 100: of no vector's length
      for (auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
        const auto count = std::min<std::int64_t>(numbers.numel(), 8 * run);
        const auto by = at::from_blob(const_cast<float*>(factors), {10})
                            .repeat_interleave(run)
                            .narrow(0, 0, count);
        const auto wanted = (numbers.narrow(0, 0, count) * by).to(dtype);
        for (auto [target, past_caches] : ways) {
          CAPTURE(target);
          CAPTURE(past_caches);
          CAPTURE(run);
          const Instructions some(target);
          const auto got = at::zeros({count}, dtype);
          quant::decode_small_floats({.type = type,
                                      .kind = dtype == at::kFloat  ? quant::NumberKind::Float
                                              : dtype == at::kHalf ? quant::NumberKind::Half
                                                                   : quant::NumberKind::BFloat,
                                      .from = bytes.const_data_ptr<std::uint8_t>(),
                                      .to = got.mutable_data_ptr(),
                                      .count = count,
                                      .factors = factors,
                                      .run = run,
                                      .past_caches = past_caches});
          CHECK(at::equal(got.isnan(), wanted.isnan()));
          CHECK(at::equal(got.nan_to_num(7, 8, 9), wanted.nan_to_num(7, 8, 9)));
          CHECK(at::equal(got.signbit().logical_or(got.isnan()),
                          wanted.signbit().logical_or(wanted.isnan())));
        }
      }
}
