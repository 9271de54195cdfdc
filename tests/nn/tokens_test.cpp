#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include "distorch/nn/attention.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/rope.h"

using namespace distorch;
using at::Tensor;

namespace {

// The default generator starts at random; tests should not.
const bool seeded = (at::manual_seed(21), true);

double difference(const Tensor& got, const Tensor& wanted) {
  REQUIRE(got.sizes() == wanted.sizes());
  return ((got - wanted).abs().max() / wanted.abs().max()).item<double>();
}

}  // namespace

TEST_CASE("the table of rotary positions: each axis turns numbers of its own") {
  auto ids = at::tensor({0.f, 2.f, 5.f, 1.f, 0.f, 3.f}).view({1, 2, 3});
  auto table = nn::rope_table(ids, {4, 2, 6}, 10000);
  REQUIRE(table.cos.sizes() == at::IntArrayRef{1, 2, 6});
  const std::vector<double> frequencies = {
      1, 1e-2, 1, 1, std::pow(1e4, -2.0 / 6), std::pow(1e4, -4.0 / 6)};
  const std::vector<int> axis = {0, 0, 1, 2, 2, 2};
  for (int token = 0; token < 2; ++token)
    for (int i = 0; i < 6; ++i) {
      auto angle = ids[0][token][axis[i]].item<double>() * frequencies[i];
      CHECK(table.cos[0][token][i].item<double>() == doctest::Approx(std::cos(angle)));
      CHECK(table.sin[0][token][i].item<double>() == doctest::Approx(std::sin(angle)));
    }
}

TEST_CASE("scores of turned heads depend on how far apart they are, in both orders of pairs") {
  auto q = at::randn({1, 1, 2, 8}), k = at::randn({1, 1, 2, 8});
  for (bool halves : {false, true}) {
    const auto score = [&](float at, float other) {
      auto turned = [&](const Tensor& x, float id) {
        return nn::apply_rope(x, nn::rope_table(at::full({1, 1, 1}, id), {8}, 100, halves));
      };
      return (turned(q, at) * turned(k, other)).sum(-1);
    };
    CHECK(difference(score(7, 4), score(13, 10)) < 1e-5);
    CHECK(difference(score(7, 4), score(7, 5)) > 1e-3);
  }
}

TEST_CASE("attention of heads with fewer keys than queries repeats the keys") {
  auto q = at::randn({2, 5, 6, 8}), k = at::randn({2, 7, 2, 8}), v = at::randn({2, 7, 2, 8});
  auto mask = at::randn({2, 1, 5, 7});
  auto each = [](const Tensor& x) { return x.repeat_interleave(3, 2).transpose(1, 2); };
  auto scores = at::matmul(q.transpose(1, 2), each(k).transpose(-1, -2)) / std::sqrt(8.0) + mask;
  auto wanted = at::matmul(scores.softmax(-1), each(v)).transpose(1, 2).reshape({2, 5, 48});
  CHECK(difference(nn::attend(q, k, v, mask), wanted) < 1e-5);
  auto plain = nn::attention(q.flatten(2), each(k).transpose(1, 2).reshape({2, 7, 48}),
                             each(v).transpose(1, 2).reshape({2, 7, 48}), {.heads = 6});
  CHECK(difference(nn::attend(q, k, v), plain) < 1e-5);
}

TEST_CASE("a gated sum leaves what goes in as it is") {
  auto x = at::ones({2, 3, 4}), gate = at::full({2, 1, 4}, 2.f), y = at::full({2, 3, 4}, 3.f);
  CHECK(difference(nn::gated_add(x, gate, y), at::full({2, 3, 4}, 7.f)) < 1e-7);
  CHECK(difference(x, at::ones({2, 3, 4})) == 0);
}

TEST_CASE("an RMS norm's weight may have a name of its own") {
  weights::Manifest manifest;
  nn::RmsNorm norm(weights::Scope(manifest).block("block") / "query_norm", 4, 1e-6, "scale");
  CHECK(manifest.weights().at(0).name == "query_norm.scale");
  manifest.slot(0).value = at::full({4}, 2.f);
  auto x = at::full({1, 2, 4}, 5.f);
  CHECK(difference(norm(x), at::full({1, 2, 4}, 2.f)) < 1e-6);
  auto heads = at::full({1, 2, 1, 4}, 5.f);
  auto still = nn::rope_table(at::zeros({1, 2, 1}), {4}, 10);
  CHECK(difference(norm.heads(heads, still), at::full({1, 2, 1, 4}, 2.f)) < 1e-6);
}
