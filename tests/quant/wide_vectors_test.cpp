#include <ATen/ATen.h>
#include <doctest/doctest.h>
#include <hwy/targets.h>

#include <vector>

#include "distorch/formats/gguf_types.h"
#include "distorch/quant/gguf_cpu.h"
#include "distorch/quant/gguf_grids.h"
#include "distorch/quant/small_float_rounding.h"

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

Tensor decoded(const formats::BlockType& type, const Tensor& blocks, quant::NumberKind kind) {
  const bool wide = kind == quant::NumberKind::Float;
  auto numbers =
      at::zeros({blocks.numel() / type.bytes * type.elements}, wide ? at::kInt : at::kShort);
  const auto id = static_cast<int>(type.id);
  CHECK(quant::decode_on_cpu({.type = id,
                              .kind = kind,
                              .blocks = blocks.const_data_ptr<std::uint8_t>(),
                              .numbers = numbers.mutable_data_ptr(),
                              .count = blocks.numel() / type.bytes,
                              .grid = quant::grid_of(id).data()}));
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
