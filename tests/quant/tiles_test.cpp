#include <doctest/doctest.h>

#include <ATen/ATen.h>

#include "distorch/quant/encoding.h"

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
    return at::ones(weight.shape, dtype);
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
