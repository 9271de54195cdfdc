#include "distorch/quant/joined.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using at::Tensor;

TEST_CASE("joined: a weight whose rows lie in several tensors is one, without a copy") {
  auto a = at::randn({2, 3}), b = at::randn({4, 3}), c = at::randn({1, 3});
  TemporaryCheckpoint file({{"a", a}, {"b", b}, {"c", c}});
  auto checkpoint = *file;
  checkpoint.add_joined("all",
                        {*checkpoint.find("a"), *checkpoint.find("b"), *checkpoint.find("c")});
  const auto& all = *checkpoint.find("all");
  CHECK((all.shape == std::vector<std::int64_t>{7, 3}));
  CHECK(weights::tensors_of(all).size() == 3);
  auto whole = at::cat({a, b, c});
  CHECK(at::equal(weights::read_dense(all, at::kFloat), whole));

  std::vector<Tensor> tensors{a, b, c};
  auto packed = weights::packed_from(all, tensors.data());
  for (std::int64_t first = 0; first < 7; ++first)
    for (std::int64_t count = 0; first + count <= 7; ++count)
      CHECK(at::equal(quant::decode(packed.rows(first, count), at::kFloat),
                      whole.narrow(0, first, count)));
  auto x = at::randn({5, 3}), bias = at::randn({7});
  CHECK(at::allclose(quant::linear(x, packed, bias), at::linear(x, whole, bias)));
}

TEST_CASE("joined: pieces of unequal rows are refused") {
  TemporaryCheckpoint file({{"a", at::randn({2, 3})}, {"b", at::randn({2, 4})}});
  auto checkpoint = *file;
  CHECK_THROWS_WITH_AS(checkpoint.add_joined("all", {*checkpoint.find("a"), *checkpoint.find("b")}),
                       doctest::Contains("unequal rows: [2, 3] and [2, 4]"), Error);
}
