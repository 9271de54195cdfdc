#include <doctest/doctest.h>

#include <ATen/ATen.h>

#include "distorch/device/sim/sim.h"
#include "distorch/quant/encoding.h"
#include "distorch/quant/joined.h"
#include "tests/support/devices.h"

using namespace distorch;

namespace {

/// Ones, and how many rows were asked for at a time.
class Ones final : public quant::Encoding {
 public:
  std::string_view name() const override { return "ones"; }
  const std::vector<quant::Companion>& companions() const override {
    static const std::vector<quant::Companion> none;
    return none;
  }
  bool matches(formats::DType, const std::vector<bool>&) const override { return false; }
  at::Tensor decode(const quant::Packed& weight, at::ScalarType dtype) const override {
    asked.push_back(weight.shape[0]);
    return at::ones(weight.shape, weight.values.options().dtype(dtype));
  }
  mutable std::vector<std::int64_t> asked;
};

}  // namespace

TEST_CASE("packed linear: rows are decoded in tiles that products like, and each once") {
  Ones ones;
  constexpr std::int64_t rows = 11000, columns = 3072;
  quant::Packed weight{&ones, at::zeros({rows, 1}, at::kByte), {}, {rows, columns}};
  auto bias = at::arange(rows, at::kFloat);
  auto y = quant::linear(at::ones({1, columns}), weight, bias);
  CHECK(at::equal(y, (bias + static_cast<double>(columns)).unsqueeze(0)));
  REQUIRE(ones.asked.size() == 3);
  std::int64_t all = 0;
  for (std::size_t i = 0; i < ones.asked.size(); ++i) {
    if (i + 1 < ones.asked.size()) CHECK(ones.asked[i] % 256 == 0);
    all += ones.asked[i];
  }
  CHECK(all == rows);
}

TEST_CASE("packed linear: an accelerator takes large matrices whole, larger ones in even parts") {
  sim::DryScope dry(test::small_rig(1, std::int64_t{8} << 30));
  const auto options = at::TensorOptions().device("sim:0").dtype(at::kBFloat16);
  auto tiles_of = [&](std::int64_t rows, std::int64_t columns) {
    Ones ones;
    quant::Packed weight{
        &ones, at::empty({rows, 1}, options.dtype(at::kByte)), {}, {rows, columns}};
    auto y = quant::linear(at::empty({2, 3, columns}, options), weight, at::empty({rows}, options));
    CHECK((y.sizes() == at::IntArrayRef{2, 3, rows}));
    return ones.asked;
  };
  using Tiles = std::vector<std::int64_t>;
  CHECK((tiles_of(21504, 3072) == Tiles{21504}));
  CHECK((tiles_of(13824, 5120) == Tiles{13824}));
  CHECK((tiles_of(43008, 3072) == Tiles{21504, 21504}));
  CHECK((tiles_of(55297, 6144) == Tiles{11264, 11264, 11264, 11264, 10241}));
}

TEST_CASE("any device: parts are multiplied into their columns, with a bias and without") {
  const auto device = test::test_device();
  auto a = at::randn({2, 5}), b = at::randn({4, 5});
  const auto whole = at::cat({a, b}), bias = at::randn({6});
  quant::Packed weight{&quant::joined(), a.to(device), {b.to(device)}, {6, 5}};
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{5}, {1, 5}, {2, 3, 5}, {0, 5}}) {
    auto x = at::randn(shape);
    auto y = quant::linear(x.to(device), weight, bias.to(device)).cpu();
    CHECK(y.sizes() == at::linear(x, whole).sizes());
    CHECK(at::allclose(y, at::linear(x, whole, bias), 1e-5, 1e-6));
    CHECK(at::allclose(quant::linear(x.to(device), weight, {}).cpu(), at::linear(x, whole), 1e-5,
                       1e-6));
  }
}
