// Rows, pieces, shapes and products of packed weights, for every size at a boundary.
#include <doctest/doctest.h>

#include "distorch/quant/encoding.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/joined.h"
#include "distorch/quant/packed.h"
#include "distorch/quant/quantize.h"

using namespace distorch;
using at::Tensor;
using quant::Packed;
using Shape = std::vector<std::int64_t>;

namespace {

Tensor numbers(const Shape& shape) {
  return (at::arange(c10::multiply_integers(shape), at::kFloat) + 1).view(shape);
}

Packed scaled(const Tensor& values, const Tensor& scale, const Tensor& input = {}) {
  return {
      &quant::float8_e4m3fn(), values.to(at::kFloat8_e4m3fn), {scale, input}, values.sizes().vec()};
}

Packed joined(const std::vector<Tensor>& pieces) {
  auto shape = pieces[0].sizes().vec();
  shape[0] = 0;
  for (const auto& piece : pieces) shape[0] += piece.size(0);
  return {&quant::joined(), pieces[0], {pieces.begin() + 1, pieces.end()}, shape};
}

}  // namespace

TEST_CASE("packed: a scale of one row is the tensor's, not a row's") {
  // One row, one scale: cutting rows must keep it.
  auto one = scaled(numbers({1, 3}), at::full({1}, 2.0f));
  CHECK(at::equal(quant::decode(one.rows(0, 1), at::kFloat), numbers({1, 3}) * 2));
  CHECK(one.rows(0, 0).parts[0].numel() == 1);
  // As many rows as the scale has entries: it is cut.
  auto two = scaled(numbers({2, 3}), at::tensor({2.0f, 3.0f}));
  CHECK(two.rows(1, 1).parts[0].item<float>() == 3.0f);
  CHECK(at::equal(quant::decode(two.rows(1, 1), at::kFloat), numbers({2, 3}).narrow(0, 1, 1) * 3));
  // The input's scale is not the rows' business.
  auto with_input = scaled(numbers({2, 3}), at::full({}, 2.0f), at::full({}, 5.0f));
  CHECK(with_input.rows(0, 1).parts[1].item<float>() == 5.0f);
}

TEST_CASE("packed: no scale at all leaves the numbers, and the original is never written to") {
  auto plain = scaled(numbers({2, 3}), Tensor());
  CHECK(at::equal(quant::decode(plain, at::kFloat), numbers({2, 3})));
  auto weight = scaled(numbers({2, 3}), at::full({}, 2.0f));
  for (int i = 0; i < 2; ++i)
    CHECK(at::equal(quant::decode(weight, at::kFloat), numbers({2, 3}) * 2));
  // Pieces that have the wanted type already are not scaled or copied in place either.
  auto a = numbers({2, 3}), before = a.clone();
  auto one_piece = joined({a});
  quant::decode(one_piece, at::kFloat);
  CHECK(at::equal(a, before));
}

TEST_CASE("packed: a kernel counts as a matrix of its rows") {
  auto weight = scaled(numbers({2, 3, 2, 2}), at::full({}, 1.0f));
  CHECK(weight.as_matrix().shape == Shape{2, 12});
  CHECK(quant::decode(weight.as_matrix(), at::kFloat).sizes() == at::IntArrayRef({2, 12}));
  CHECK(scaled(numbers({2, 3}), Tensor()).as_matrix().shape == Shape{2, 3});
  CHECK(scaled(numbers({4}), Tensor()).as_matrix().shape == Shape{4});
}

TEST_CASE("packed: another device keeps type, scales and what is absent") {
  auto weight = scaled(numbers({2, 3}), at::full({}, 2.0f)).to(at::kMeta);
  CHECK(weight.device().is_meta());
  CHECK((weight.values.scalar_type() == at::kFloat8_e4m3fn));
  CHECK(weight.parts[0].is_meta());
  CHECK_FALSE(weight.parts[1].defined());
  CHECK(weight.shape == Shape{2, 3});
}

TEST_CASE("joined: rows up to the next piece, from every row") {
  auto weight = joined({numbers({2, 3}), numbers({1, 3}), numbers({3, 3})});
  const std::vector<std::int64_t> wanted{2, 1, 1, 3, 2, 1};
  for (std::int64_t row = 0; row < 6; ++row)
    CHECK(weight.encoding->rows_in_one(weight, row) == wanted[static_cast<std::size_t>(row)]);
  // Rows of one piece are that piece's, in its own memory.
  auto cut = weight.rows(2, 1);
  CHECK(cut.parts.empty());
  CHECK(cut.values.data_ptr() == weight.parts[0].data_ptr());
  CHECK(weight.rows(3, 0).shape == Shape{0, 3});
  CHECK(quant::decode(weight.rows(6, 0), at::kFloat).sizes() == at::IntArrayRef({0, 3}));
  CHECK_FALSE(weight.encoding->matches(formats::DType::F32, {}));
}

TEST_CASE("joined: pieces of several types, with a bias, for one and for many inputs") {
  auto a = at::randn({2, 5}), b = at::randn({4, 5}).to(at::kHalf);
  auto weight = joined({a, b});
  auto whole = at::cat({a, b.to(at::kFloat)});
  CHECK(at::equal(quant::decode(weight, at::kFloat), whole));
  for (const Shape& shape : {Shape{5}, Shape{1, 5}, Shape{2, 3, 5}, Shape{0, 5}}) {
    auto x = at::randn(shape), bias = at::randn({6});
    CHECK(at::allclose(quant::linear(x, weight, bias), at::linear(x, whole, bias), 1e-5, 1e-6));
    CHECK(at::allclose(quant::linear(x, weight, {}), at::linear(x, whole), 1e-5, 1e-6));
  }
}

TEST_CASE("joined: packed pieces, each as if it were alone, and plain ones among them") {
  const auto a = at::randn({3, 64}), b = at::randn({2, 64}), c = at::randn({4, 64});
  const auto first = quant::to_int8(a, true, 16), last = quant::to_float8(c, at::kFloat8_e4m3fn);
  const Packed plain{nullptr, b, {}, {2, 64}};
  const auto weight = quant::join({first, plain, last});
  CHECK(weight.shape == Shape{9, 64});
  CHECK(quant::is_joined(weight.encoding));
  CHECK(weight.encoding == quant::join({first, plain, last}).encoding);
  CHECK(weight.encoding->rests_packed());
  CHECK_FALSE(quant::join({plain, last}).encoding->rests_packed());
  const auto whole =
      at::cat({quant::decode(first, at::kFloat), b, quant::decode(last, at::kFloat)});
  CHECK(at::equal(quant::decode(weight, at::kFloat), whole));
  for (std::int64_t from = 0; from < 9; ++from)
    for (std::int64_t count = 0; from + count <= 9; ++count)
      CHECK(at::equal(quant::decode(weight.rows(from, count), at::kFloat),
                      whole.narrow(0, from, count)));
  for (std::int64_t row = 0; row < 9; ++row)
    CHECK(weight.encoding->rows_in_one(weight, row) == (row < 3 ? 3 : row < 5 ? 5 : 9) - row);
  // Whole numbers are multiplied as such, what is decoded is decoded.
  const auto x = at::randn({5, 64}), bias = at::randn({9});
  const auto y = weight.encoding->product(x, weight, bias);
  CHECK(at::equal(y.narrow(1, 0, 3), first.encoding->product(x, first, bias.narrow(0, 0, 3))));
  CHECK(at::allclose(y.narrow(1, 3, 6), at::linear(x, whole, bias).narrow(1, 3, 6), 1e-5, 1e-5));
  const auto decoded = quant::join({plain, last});
  CHECK_FALSE(decoded.encoding->product(x, decoded, {}).defined());
  CHECK(at::allclose(quant::linear(x, decoded, {}), at::linear(x, whole.narrow(0, 3, 6)), 1e-5,
                     1e-5));
  // Another device keeps the pieces.
  const auto there = weight.to(at::kMeta);
  CHECK(quant::pieces_of(there).size() == 3);
  CHECK(there.parts[1].is_meta());
  CHECK_FALSE(quant::pieces_of(first).size());
}

TEST_CASE("joined: packed kernels count as matrices of their rows") {
  auto kernel = [](const Shape& shape) { return scaled(numbers(shape) / 64, at::full({}, 2.0f)); };
  const auto weight = quant::join({kernel({2, 3, 1, 1}), kernel({1, 3, 1, 1})});
  const auto whole = at::cat({numbers({2, 3}) / 32, numbers({1, 3}) / 32});
  CHECK(at::allclose(quant::decode(weight.as_matrix(), at::kFloat), whole, 0.07));
  const auto x = at::ones({1, 3});
  CHECK(at::allclose(quant::linear(x, weight, {}), at::linear(x, whole), 0.07));
  CHECK(quant::decode(weight, at::kFloat).sizes() == at::IntArrayRef({3, 3, 1, 1}));
}

TEST_CASE("float8: found by type and scale; both names of both companions") {
  using formats::DType;
  for (auto [encoding, dtype] : {std::pair(&quant::float8_e4m3fn(), DType::F8_E4M3),
                                 std::pair(&quant::float8_e5m2(), DType::F8_E5M2)})
    for (auto type : {DType::F8_E4M3, DType::F8_E5M2, DType::U8, DType::F32}) {
      CHECK(encoding->matches(type, {true, false}) == (type == dtype));
      CHECK(encoding->matches(type, {true, true}) == (type == dtype));
      CHECK_FALSE(encoding->matches(type, {false, true}));
    }
  const auto& companions = quant::float8_e5m2().companions();
  REQUIRE(companions.size() == 2);
  CHECK(companions[0].names == std::vector<std::string>{"scale_weight", "weight_scale"});
  CHECK(companions[1].names == std::vector<std::string>{"scale_input", "input_scale"});
}

TEST_CASE("float8: products in 8 bits are left to devices that have them") {
  CHECK_FALSE(quant::has_products(at::kCPU));
  auto weight = scaled(at::ones({16, 16}), at::full({}, 1.0f));
  CHECK_FALSE(quant::fast_linear(at::ones({1, 16}, at::kHalf), weight, {}).defined());
}
