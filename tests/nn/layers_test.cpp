#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include <cmath>
#include <optional>

#include "distorch/nn/activated_linear.h"
#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/patch.h"
#include "distorch/quant/encoding.h"
#include "distorch/quant/quantize.h"
#include "distorch/weights/checkpoint.h"
#include "tests/support/devices.h"

using namespace distorch;
using at::Tensor;
using weights::Adapter;
using weights::Part;

namespace {

// The default generator starts at random; tests should not.
const bool seeded = (at::manual_seed(20), true);

/// Largest difference over the largest value expected.
double difference(const Tensor& got, const Tensor& wanted) {
  REQUIRE(got.sizes() == wanted.sizes());
  return ((got - wanted).abs().max() / wanted.abs().max()).item<double>();
}

/// One layer in a manifest of its own, with random weights.
template <typename Layer>
struct Made {
  template <typename... Args>
  explicit Made(Args... args) : layer(weights::Scope(manifest).block("layer"), args...) {
    for (std::size_t i = 0; i < manifest.weights().size(); ++i)
      manifest.slot(i).value = at::randn(manifest.weights()[i].shape);
  }
  weights::Slot& weight() { return manifest.slot(0); }
  weights::Slot& bias() { return manifest.slot(1); }
  weights::Manifest manifest;
  Layer layer;
};

/// That a layer with this adapter (twice) computes what it computes with the change merged.
template <typename Layer>
void check_patch(Made<Layer>& made, const Adapter& adapter, const Tensor& x, const Tensor& change) {
  auto plain = made.layer(x);
  auto original = made.weight().value;
  made.weight().adapters = {adapter, adapter};
  auto patched = made.layer(x);
  made.weight().adapters.clear();
  made.weight().value = original + 2 * adapter.strength * change.view(original.sizes());
  auto merged = made.layer(x);
  made.weight().value = original;
  CHECK(difference(patched, merged) < 1e-5);
  CHECK(difference(plain, merged) > 1e-2);
}

Adapter low_rank(const Tensor& down, const Tensor& up, double scale, const Tensor& mid = {}) {
  Adapter adapter{.parts = {{Part::Down, down}, {Part::Up, up}}, .strength = scale};
  if (mid.defined()) adapter.parts[Part::Mid] = mid;
  return adapter;
}

Adapter difference_of(const Tensor& value, double scale) {
  return {
      .kind = weights::AdapterKind::Difference, .parts = {{Part::Value, value}}, .strength = scale};
}

}  // namespace

TEST_CASE("linear: x · Wt + b on the last dimension") {
  Made<nn::Linear> made(3, 2);
  made.weight().value = at::tensor({1.f, 2.f, 3.f, 4.f, 5.f, 6.f}).view({2, 3});
  made.bias().value = at::tensor({10.f, 20.f});
  auto y = made.layer(at::ones({1, 2, 3}));
  CHECK(at::equal(y, at::tensor({16.f, 35.f, 16.f, 35.f}).view({1, 2, 2})));
  CHECK(made.manifest.weights()[0].shape == std::vector<std::int64_t>{2, 3});
  weights::Manifest bare;
  nn::Linear no_bias(weights::Scope(bare).block("b"), 3, 2, false);
  CHECK(bare.weights().size() == 1);
}

TEST_CASE(
    "activated linear: a linear layer of what is activated, of plain numbers and of whole ones") {
  Made<nn::ActivatedLinear> made(512, 24);
  const auto weight = made.weight().value, bias = made.bias().value;
  const auto packed = std::make_shared<quant::Packed>(quant::to_int8(weight, true, 256));
  for (bool gated : {false, true})
    for (std::int64_t behind : {0, 256}) {
      auto left = behind ? at::randn({2, 3, behind}) : Tensor();
      auto x = at::randn({2, 3, (512 - behind) * (gated ? 2 : 1)});
      auto activated = nn::activated_behind(left, x, gated);
      made.weight().value = weight;
      made.weight().packed = nullptr;
      CHECK(difference(made.layer(left, x.clone(), gated), at::linear(activated, weight, bias)) <
            1e-5);
      made.weight().value = Tensor();
      made.weight().packed = packed;
      CHECK(difference(made.layer(left, x.clone(), gated),
                       packed->encoding->product(activated, *packed, bias)) < 1e-5);
    }
}

TEST_CASE("activated linear: after rows of another layer, behind other numbers or alone") {
  Made<nn::Linear> first(32, 80);
  Made<nn::ActivatedLinear> second(64, 24);
  auto x = at::randn({2, 3, 32});
  CHECK(first.layer.is_plain(x));
  CHECK_FALSE(first.layer.is_plain(x.to(at::kDouble)));
  CHECK(difference(first.layer.gelu_tanh(x), at::gelu(first.layer(x), "tanh")) < 1e-6);
  CHECK(difference(first.layer.rows(10, 50)(x), first.layer(x).narrow(-1, 10, 50)) < 1e-6);
  for (std::int64_t behind : {0, 24}) {
    auto left = behind ? at::randn({2, 3, behind}) : Tensor();
    const auto begin = 80 - (64 - behind);
    auto rest = first.layer(x).narrow(-1, begin, 64 - behind).clone();
    CHECK(difference(second.layer.after(first.layer, begin, x, left),
                     second.layer(left, rest, false)) < 1e-5);
  }
  for (std::int64_t behind : {0, 24}) {  // of which each part has its own products
    const auto many = at::randn({1, 2 * nn::kManyRows + 3, 32});
    auto left = behind ? at::randn({1, many.size(1), behind}) : Tensor();
    const auto begin = 80 - (64 - behind);
    auto rest = first.layer(many).narrow(-1, begin, 64 - behind).clone();
    CHECK(difference(second.layer.after(first.layer, begin, many, left),
                     second.layer(left, rest, false)) < 1e-5);
  }
  first.weight().adapters = {low_rank(at::randn({4, 32}), at::randn({80, 4}), 0.7)};
  CHECK_FALSE(first.layer.is_plain(x));
  CHECK(difference(first.layer.gelu_tanh(x), at::gelu(first.layer(x), "tanh")) < 1e-6);
}

TEST_CASE("linear: patches equal merged weights") {
  Made<nn::Linear> made(24, 16);
  auto x = at::randn({2, 5, 24}), down = at::randn({4, 24}), up = at::randn({16, 4}),
       mid = at::randn({4, 4});
  check_patch(made, low_rank(down, up, 0.7), x, up.mm(down));
  check_patch(made, low_rank(down.view({4, 24, 1, 1}), up.view({16, 4, 1, 1}), -1.3), x,
              up.mm(down));
  check_patch(made, low_rank(down, up, 0.5, mid), x, up.mm(mid).mm(down));
  check_patch(made, difference_of(at::ones({16, 24}), 0.25), x, at::ones({16, 24}));
}

TEST_CASE("conv: patches equal merged weights, in both memory formats") {
  auto x = at::randn({2, 8, 7, 9});
  for (bool last : {false, true}) {
    auto image = last ? x.contiguous(at::MemoryFormat::ChannelsLast) : x;
    auto down = at::randn({4, 8, 3, 3}), up = at::randn({6, 4, 1, 1});
    for (nn::ConvOptions options : {nn::ConvOptions{}, nn::ConvOptions{.stride = 2}}) {
      Made<nn::Conv2d> made(8, 6, options);
      check_patch(made, low_rank(down, up, 0.6), image, up.view({6, 4}).mm(down.flatten(1)));
      auto small = at::randn({4, 8, 1, 1}), mid = at::randn({5, 4, 3, 3}),
           wide = at::randn({6, 5, 1, 1});
      auto product = at::einsum("oa,abxy,bi->oixy", {wide.flatten(1), mid, small.flatten(1)});
      check_patch(made, low_rank(small, wide, 0.4, mid), image, product);
      CHECK(difference(nn::patched(weights::Weight(&made.weight())), made.weight().value) == 0);
      made.weight().adapters = {low_rank(small, wide, 0.4, mid)};
      CHECK(difference(nn::patched(weights::Weight(&made.weight())),
                       made.weight().value + 0.4 * product) < 1e-5);
      made.weight().adapters.clear();
      check_patch(made, difference_of(at::ones({6, 8, 3, 3}), 0.1), image, at::ones({6, 8, 3, 3}));
    }
    Made<nn::Conv2d> made(8, 6, nn::pointwise);
    auto low = at::randn({4, 8}), high = at::randn({6, 4});
    check_patch(made, low_rank(low, high, 1.1), image, high.mm(low));
    check_patch(made, low_rank(low.view({4, 8, 1, 1}), high.view({6, 4, 1, 1}), 1), image,
                high.mm(low));
  }
}

TEST_CASE("any device: a convolution with a row added to every position") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto x = at::randn({2, 8, 5, 3}), added = at::randn({2, 6});
  auto everywhere = added.unsqueeze(-1).unsqueeze(-1);
  for (bool has_bias : {true, false}) {
    CAPTURE(has_bias);
    Made<nn::Conv2d> made(8, 6, nn::ConvOptions{.bias = has_bias});
    std::optional<Tensor> bias;
    if (has_bias) bias = made.bias().value;
    auto wanted = at::conv2d(x, made.weight().value, bias, 1, 1) + everywhere;
    made.weight().value = made.weight().value.to(device);
    if (has_bias) made.bias().value = bias->to(device);
    CHECK(difference(made.layer(x.to(device), added.to(device)).cpu(), wanted) < 1e-5);
  }
  // With an adapter of the convolution, which has no bias.
  Made<nn::Conv2d> made(8, 6);
  made.weight().adapters = {low_rank(at::randn({4, 8, 3, 3}), at::randn({6, 4, 1, 1}), 0.6)};
  CHECK(difference(made.layer(x, added), made.layer(x) + everywhere) < 1e-6);
}

TEST_CASE("conv: a 1x1 convolution of a channels-last image is the matrix product it should be") {
  Made<nn::Conv2d> made(8, 6, nn::pointwise);
  auto x = at::randn({2, 8, 5, 3});
  auto wanted = at::conv2d(x, made.weight().value, made.bias().value);
  auto got = made.layer(x.contiguous(at::MemoryFormat::ChannelsLast));
  CHECK(difference(got, wanted) < 1e-5);
  CHECK(got.is_contiguous(at::MemoryFormat::ChannelsLast));
  CHECK(difference(made.layer(x), wanted) < 1e-6);
}

TEST_CASE("layers keep channels-last, and tokens are a view of it") {
  auto x = nn::to_layout(at::randn({2, 32, 5, 3}), at::kFloat);
  Made<nn::Conv2d> conv(32, 32);
  Made<nn::GroupNorm> norm(32);
  for (const auto& y :
       {conv.layer(x), norm.layer(x), nn::upsample_nearest(x, 9, 5), at::cat({x, x}, 1)})
    CHECK(y.is_contiguous(at::MemoryFormat::ChannelsLast));
  auto tokens = nn::to_tokens(x);
  CHECK(tokens.const_data_ptr() == x.const_data_ptr());
  CHECK(at::equal(tokens.select(1, 4), x.select(2, 1).select(2, 1)));
  CHECK(at::equal(nn::to_image(tokens, 5, 3), x));
}

TEST_CASE("norms: weight, bias and differences of both") {
  Made<nn::GroupNorm> group(64, 1e-6, std::int64_t{32});
  auto x = at::randn({2, 64, 3, 3}) * 4 + 1;
  auto groups = x.view({2, 32, -1});
  auto normal = ((groups - groups.mean(2, true)) / (groups.var(2, false, true) + 1e-6).sqrt())
                    .view(x.sizes());
  auto wanted =
      normal * group.weight().value.view({1, 64, 1, 1}) + group.bias().value.view({1, 64, 1, 1});
  CHECK(difference(group.layer(x), wanted) < 1e-5);
  Made<nn::LayerNorm> layer(16);
  auto y = at::randn({3, 16});
  check_patch(layer, difference_of(at::full({16}, 0.3), 2.0), y, at::full({16}, 0.3));
  auto before = layer.layer(y);
  layer.bias().adapters = {difference_of(at::ones({16}), 0.5)};
  CHECK(difference(layer.layer(y), before + 0.5) < 1e-6);
}

TEST_CASE("embedding: rows, the first rows, patches") {
  Made<nn::Embedding> made(10, 4);
  auto ids = at::tensor({3, 3, 7}, at::kLong);
  CHECK(at::equal(made.layer(ids)[2], made.weight().value[7]));
  CHECK(at::equal(made.layer.first(2), made.weight().value.narrow(0, 0, 2)));
  check_patch(made, difference_of(at::ones({10, 4}), 0.5), ids, at::ones({10, 4}));
}

TEST_CASE("timestep embedding: cosines first, frequencies from 1 to 1/10000") {
  auto e = nn::timestep_embedding(at::tensor({0.0, 500.5}, at::kFloat), 8);
  CHECK(at::equal(e[0], at::tensor({1.f, 1.f, 1.f, 1.f, 0.f, 0.f, 0.f, 0.f})));
  for (int i = 0; i < 4; ++i) {
    double angle = 500.5 * std::pow(10000.0, -i / 4.0);
    CHECK(e[1][i].item<double>() == doctest::Approx(std::cos(angle)).epsilon(1e-4));
    CHECK(e[1][4 + i].item<double>() == doctest::Approx(std::sin(angle)).epsilon(1e-4));
  }
  CHECK(nn::timestep_embedding(at::ones({3}), 7).sizes() == at::IntArrayRef({3, 7}));
}

TEST_CASE("attention: softmax of scaled scores, head by head") {
  auto q = at::randn({2, 5, 12}), k = at::randn({2, 7, 12}), v = at::randn({2, 7, 12});
  auto wanted = at::empty({2, 5, 12});
  for (int h = 0; h < 3; ++h) {
    auto part = [&](const Tensor& t) { return t.narrow(2, 4 * h, 4); };
    auto scores = part(q).matmul(part(k).transpose(1, 2)) / 2.0;
    wanted.narrow(2, 4 * h, 4).copy_(scores.softmax(-1).matmul(part(v)));
  }
  CHECK(difference(nn::attention(q, k, v, {.heads = 3}), wanted) < 1e-5);

  auto mask = at::zeros({7, 7}).fill_(-1e9).triu(1);
  auto causal = nn::attention(k, k, v, {.heads = 3, .causal = true});
  CHECK(difference(causal, nn::attention(k, k, v, {.heads = 3, .mask = mask})) < 1e-5);
  // the first position sees itself only
  CHECK(difference(causal.select(1, 0), v.select(1, 0)) < 1e-6);
}

TEST_CASE("attention: the sliced form for long bfloat16 sequences on the CPU") {
  auto q = at::randn({2, 700, 80}).to(at::kBFloat16), k = at::randn({2, 601, 80}).to(at::kBFloat16);
  auto v = at::randn({2, 601, 80}).to(at::kBFloat16);
  auto got = nn::attention(q, k, v, {.heads = 2}).to(at::kFloat);
  auto wanted = nn::attention(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat), {.heads = 2});
  // Rounding the scores, the weights and the result to 8 bits each.
  CHECK(difference(got, wanted) < 0.03);
  auto other = nn::attention(q, k.flip(1), v.flip(1), {.heads = 2}).to(at::kFloat);
  CHECK(difference(other, wanted) < 0.03);  // the order of keys does not matter
}

TEST_CASE("activations") {
  auto x = at::linspace(-3, 3, 13).view({1, 13});
  auto value = [](const Tensor& t) { return t.flatten()[8].item<double>(); };  // of x = 1
  CHECK(value(nn::silu(x)) == doctest::Approx(1 / (1 + std::exp(-1.0))));
  CHECK(value(nn::gelu(x)) == doctest::Approx(0.5 * (1 + std::erf(std::sqrt(0.5)))));
  CHECK(value(nn::quick_gelu(x)) == doctest::Approx(1 / (1 + std::exp(-1.702))));
  auto two = at::tensor({2.f, 3.f, 1.f, 1.f});
  CHECK(nn::geglu(two)[1].item<double>() ==
        doctest::Approx(3 * 0.5 * (1 + std::erf(std::sqrt(0.5)))));
  auto own = x.clone();
  nn::silu_over(own);
  CHECK(at::equal(own, nn::silu(x)));
}
