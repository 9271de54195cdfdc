// Layers number by number: loops in double precision, at sizes that are no powers of two, and for
// tensors that are slices of larger ones.
#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "distorch/nn/activation.h"
#include "distorch/nn/attention.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/modulation.h"
#include "distorch/nn/norm.h"
#include "distorch/nn/qkv.h"
#include "distorch/nn/rope.h"

using namespace distorch;
using at::Tensor;

namespace {

Tensor random(at::IntArrayRef shape, int seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

/// Largest difference of one number, over the largest wanted.
double difference(const Tensor& got, const Tensor& wanted) {
  REQUIRE(got.sizes() == wanted.sizes());
  auto a = got.to(at::kDouble), b = wanted.to(at::kDouble);
  return ((a - b).abs().max() / b.abs().max()).item<double>();
}

/// x with every number put through a function.
template <class Function>
Tensor mapped(const Tensor& x, Function function) {
  auto result = x.to(at::kDouble).contiguous().clone();
  auto* numbers = result.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < result.numel(); ++i) numbers[i] = function(numbers[i]);
  return result;
}

double gelu_tanh(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
}
double silu(double x) { return x / (1 + std::exp(-x)); }

/// A layer with random weights.
template <class Layer>
struct Made {
  template <class... Args>
  explicit Made(Args... args) : layer(weights::Scope(manifest).block("layer"), args...) {
    for (std::size_t i = 0; i < manifest.weights().size(); ++i)
      manifest.slot(i).value = random(manifest.weights()[i].shape, static_cast<int>(30 + i));
  }
  const Tensor& weight(std::size_t i) { return manifest.slot(i).value; }
  weights::Manifest manifest;
  Layer layer;
};

/// The same numbers as a slice of a larger tensor.
Tensor as_slice(const Tensor& x) {
  auto shape = x.sizes().vec();
  shape.back() += 3;
  auto larger = at::full(shape, 99.0);
  auto part = larger.narrow(-1, 2, x.size(-1));
  part.copy_(x);
  return part;
}

}  // namespace

TEST_CASE("activations: every number of every form, far from zero too") {
  auto x = at::linspace(-12, 12, 241).view({1, 241});
  CHECK(difference(nn::silu(x), mapped(x, silu)) < 1e-6);
  CHECK(difference(nn::gelu(x), mapped(x, [](double v) {
                     return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
                   })) < 1e-6);
  CHECK(difference(nn::quick_gelu(x),
                   mapped(x, [](double v) { return v / (1 + std::exp(-1.702 * v)); })) < 1e-6);
  CHECK(difference(nn::gelu_tanh_over(x.clone()), mapped(x, gelu_tanh)) < 1e-6);
  auto gate = random({2, 3, 5}, 1), value = random({2, 3, 5}, 2);
  CHECK(difference(nn::swiglu_over(gate.clone(), value), mapped(gate, silu) * value) < 1e-6);
  auto both = at::cat({value, gate}, -1);
  CHECK(difference(nn::geglu(both), value * mapped(gate, [](double v) {
                                      return 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
                                    })) < 1e-6);
  CHECK(nn::geglu(both).is_contiguous());
}

TEST_CASE("activations: what an MLP makes stands behind what is left of it") {
  auto left = random({2, 3, 4}, 1), x = random({2, 3, 10}, 2);
  auto gated = mapped(x.narrow(2, 0, 5), silu) * x.narrow(2, 5, 5);
  for (const auto& input : {x, as_slice(x)}) {
    CHECK(difference(nn::activated_behind({}, input, false), mapped(x, gelu_tanh)) < 1e-6);
    CHECK(difference(nn::activated_behind({}, input, true), gated) < 1e-6);
    CHECK(difference(nn::activated_behind(left, input, true),
                     at::cat({left.to(at::kDouble), gated}, 2)) < 1e-6);
    CHECK(difference(nn::activated_behind(as_slice(left), input, false),
                     at::cat({left.to(at::kDouble), mapped(x, gelu_tanh)}, 2)) < 1e-6);
  }
  CHECK(at::equal(x, random({2, 3, 10}, 2)));
}

TEST_CASE("norms: mean and spread of groups, of tokens and of roots, by loops") {
  auto x = random({2, 6, 3, 5}, 3) * 4 + 7;
  Made<nn::GroupNorm> group(std::int64_t{6}, 1e-3, std::int64_t{2});
  auto got = group.layer(x);
  for (int b = 0; b < 2; ++b)
    for (int c = 0; c < 6; ++c) {
      auto its = x[b].narrow(0, c / 3 * 3, 3).to(at::kDouble);
      auto mean = its.mean().item<double>(), variance = its.var(false).item<double>();
      auto wanted = (x[b][c].to(at::kDouble) - mean) / std::sqrt(variance + 1e-3) *
                        group.weight(0)[c].item<double>() +
                    group.weight(1)[c].item<double>();
      CHECK(difference(got[b][c], wanted) < 1e-5);
      CHECK(difference(group.layer.silu(x)[b][c], mapped(wanted, silu)) < 1e-5);
    }
  auto tokens = random({2, 4, 7}, 4) * 3 - 2;
  Made<nn::LayerNorm> layer(std::int64_t{7}, 1e-2);
  Made<nn::RmsNorm> root(std::int64_t{7}, 1e-2);
  for (int b = 0; b < 2; ++b)
    for (int l = 0; l < 4; ++l) {
      auto token = tokens[b][l].to(at::kDouble);
      auto centred = token - token.mean();
      auto plain = centred / std::sqrt(centred.square().mean().item<double>() + 1e-2);
      CHECK(difference(layer.layer(tokens)[b][l], plain * layer.weight(0) + layer.weight(1)) <
            1e-5);
      CHECK(difference(nn::layer_norm(tokens, 1e-2)[b][l], plain) < 1e-5);
      auto by_root = token / std::sqrt(token.square().mean().item<double>() + 1e-2);
      CHECK(difference(root.layer(tokens)[b][l], by_root * root.weight(0)) < 1e-5);
    }
}

TEST_CASE("modulation: shift and scale of the whole batch, of each item, of each token") {
  auto x = random({2, 3, 5}, 1), y = random({2, 3, 5}, 2);
  auto normal = nn::layer_norm(x, 1e-6).to(at::kDouble);
  for (auto shape : {std::vector<std::int64_t>{1, 1, 5}, {2, 1, 5}, {1, 3, 5}, {2, 3, 5}}) {
    auto shift = random(shape, 3), scale = random(shape, 4);
    CHECK(difference(nn::modulated_norm(x, shift, scale), normal * (1 + scale) + shift) < 1e-5);
    CHECK(difference(nn::modulated_norm(as_slice(x), shift, scale), normal * (1 + scale) + shift) <
          1e-5);
    CHECK(difference(nn::gated_add(x, scale, y), x + scale * y) < 1e-6);
  }
}

TEST_CASE("rotary positions: pairs turn as complex numbers do, beside each other or half apart") {
  constexpr int kWidth = 6;
  auto x = random({2, 4, 3, kWidth}, 5);
  auto ids = at::tensor({0.f, 1.f, 4.f, 2.5f}).view({1, 4, 1});
  for (bool halves : {false, true}) {
    auto table = nn::rope_table(ids, {kWidth}, 50, halves);
    auto wanted = at::empty({2, 4, 3, kWidth}, at::kDouble);
    for (int b = 0; b < 2; ++b)
      for (int l = 0; l < 4; ++l)
        for (int h = 0; h < 3; ++h)
          for (int i = 0; i < kWidth / 2; ++i) {
            auto first = halves ? i : 2 * i, second = halves ? i + kWidth / 2 : 2 * i + 1;
            auto angle = ids[0][l][0].item<double>() * std::pow(50.0, -2.0 * i / kWidth);
            auto re = x[b][l][h][first].item<double>(), im = x[b][l][h][second].item<double>();
            wanted[b][l][h][first] = re * std::cos(angle) - im * std::sin(angle);
            wanted[b][l][h][second] = re * std::sin(angle) + im * std::cos(angle);
          }
    CHECK(difference(nn::apply_rope(x, table), wanted) < 1e-5);
    CHECK(difference(nn::apply_rope(as_slice(x), table), wanted) < 1e-5);
    // A norm before it, of heads that are turned into their part of a larger tensor.
    Made<nn::RmsNorm> norm(std::int64_t{kWidth}, 1e-6);
    auto normal = norm.layer(x);
    CHECK(difference(norm.layer.heads(x, table), nn::apply_rope(normal, table)) < 1e-5);
    auto room = at::full({2, 9, 3, kWidth}, 7.0);
    norm.layer.heads_into(room.narrow(1, 3, 4), x, table);
    CHECK(difference(room.narrow(1, 3, 4), nn::apply_rope(normal, table)) < 1e-5);
    CHECK((room.narrow(1, 0, 3) == 7).all().item<bool>());
    CHECK((room.narrow(1, 7, 2) == 7).all().item<bool>());
  }
}

TEST_CASE("attention: causal with shared keys, one query, one key") {
  auto q = random({2, 4, 6, 8}, 1), k = random({2, 4, 3, 8}, 2), v = random({2, 4, 3, 8}, 3);
  auto got = nn::attend(q, k, v, {}, true);
  for (int b = 0; b < 2; ++b)
    for (int h = 0; h < 6; ++h)
      for (int l = 0; l < 4; ++l) {
        auto keys = k[b].narrow(0, 0, l + 1).select(1, h / 2).to(at::kDouble);
        auto scores = keys.mv(q[b][l][h].to(at::kDouble)) / std::sqrt(8.0);
        auto values = v[b].narrow(0, 0, l + 1).select(1, h / 2).to(at::kDouble);
        auto wanted = scores.softmax(0).matmul(values);
        CHECK(difference(got[b][l].narrow(0, 8 * h, 8), wanted) < 1e-5);
      }
  auto one = nn::attention(random({1, 1, 6}, 4), random({1, 1, 6}, 5),
                           v.flatten().narrow(0, 0, 6).view({1, 1, 6}), {.heads = 2});
  CHECK(difference(one.flatten(), v.flatten().narrow(0, 0, 6)) < 1e-6);
  // A mask of minus infinity hides a key wholly.
  auto mask = at::zeros({1, 1, 1, 4});
  mask[0][0][0][2] = -std::numeric_limits<float>::infinity();
  auto keys = random({1, 4, 6}, 6), values = random({1, 4, 6}, 7), query = random({1, 2, 6}, 8);
  auto without = [](const Tensor& x) { return at::cat({x.narrow(1, 0, 2), x.narrow(1, 3, 1)}, 1); };
  CHECK(difference(nn::attention(query, keys, values, {.heads = 3, .mask = mask}),
                   nn::attention(query, without(keys), without(values), {.heads = 3})) < 1e-5);
}

TEST_CASE("convolution: kernels, strides and borders by loops") {
  auto x = random({2, 3, 7, 6}, 1);
  for (auto [kernel, stride, padding, bias] :
       {std::tuple(3, 1, 1, true), std::tuple(3, 2, 1, false), std::tuple(1, 1, 0, true),
        std::tuple(4, 4, 0, true), std::tuple(2, 1, 0, false), std::tuple(3, 2, 0, true)}) {
    Made<nn::Conv2d> conv(
        std::int64_t{3}, std::int64_t{4},
        nn::ConvOptions{.kernel = kernel, .stride = stride, .padding = padding, .bias = bias});
    const auto height = (7 + 2 * padding - kernel) / stride + 1;
    const auto width = (6 + 2 * padding - kernel) / stride + 1;
    auto wanted = at::zeros({2, 4, height, width}, at::kDouble);
    auto w = conv.weight(0);
    for (int o = 0; o < 4; ++o)
      for (int j = 0; j < kernel; ++j)
        for (int i = 0; i < kernel; ++i)
          for (int y = 0; y < height; ++y)
            for (int u = 0; u < width; ++u) {
              auto row = y * stride + j - padding, column = u * stride + i - padding;
              if (row < 0 || row >= 7 || column < 0 || column >= 6) continue;
              for (int b = 0; b < 2; ++b)
                wanted[b][o][y][u] +=
                    (x[b].select(1, row).select(1, column) * w[o].select(1, j).select(1, i))
                        .sum()
                        .to(at::kDouble);
            }
    if (bias) wanted += conv.weight(1).view({1, 4, 1, 1});
    CHECK(conv.manifest.weights().size() == (bias ? 2 : 1));
    CHECK(difference(conv.layer(x), wanted) < 1e-5);
    CHECK(difference(conv.layer(x.contiguous(at::MemoryFormat::ChannelsLast)), wanted) < 1e-5);
  }
}

TEST_CASE("tokens and pictures: there and back, each cell in its row") {
  auto image = random({2, 3, 4, 5}, 1);
  auto tokens = nn::to_tokens(image);
  REQUIRE(tokens.sizes() == at::IntArrayRef({2, 20, 3}));
  for (int y = 0; y < 4; ++y)
    for (int x = 0; x < 5; ++x)
      CHECK(at::equal(tokens.select(1, y * 5 + x), image.select(2, y).select(2, x)));
  CHECK(at::equal(nn::to_image(tokens, 4, 5), image));
  auto larger = nn::upsample_nearest(image, 8, 15);
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 15; ++x)
      CHECK(at::equal(larger.select(2, y).select(2, x), image.select(2, y / 2).select(2, x / 3)));
}

TEST_CASE("queries, keys and values: one matrix or three give the same heads") {
  nn::QkvOptions options{.in = 5, .heads = 4, .kv_heads = 2, .head_width = 3, .bias = true};
  Made<nn::QkvProjection> fused(options);
  options.split = true;
  Made<nn::QkvProjection> apart(options);
  REQUIRE(fused.manifest.weights().size() == 2);
  REQUIRE(apart.manifest.weights().size() == 6);
  std::int64_t first = 0;
  for (std::string name : {"q", "k", "v"}) {
    for (std::size_t i = 0; i < 6; ++i) {
      const auto& declared = apart.manifest.weights()[i];
      if (!declared.name.starts_with(name + ".")) continue;
      auto rows = declared.shape[0];
      auto from = declared.name.ends_with("weight") ? 0 : 1;
      apart.manifest.slot(i).value =
          fused.weight(static_cast<std::size_t>(from)).narrow(0, first, rows).clone();
    }
    first += name == "q" ? 12 : 6;
  }
  auto x = random({2, 7, 5}, 9);
  auto a = fused.layer(x), b = apart.layer(x);
  CHECK(a.q.sizes() == at::IntArrayRef({2, 7, 4, 3}));
  CHECK(a.k.sizes() == at::IntArrayRef({2, 7, 2, 3}));
  CHECK(difference(a.q, b.q) < 1e-6);
  CHECK(difference(a.k, b.k) < 1e-6);
  CHECK(difference(a.v, b.v) < 1e-6);
  auto all = at::linear(x, fused.weight(0), fused.weight(1));
  CHECK(difference(a.v.flatten(2), all.narrow(2, 18, 6)) < 1e-6);
}

TEST_CASE("timesteps: an odd width ends in a zero, a batch keeps its order") {
  auto steps = at::tensor({0.0f, 1.0f, 999.5f});
  auto got = nn::timestep_embedding(steps, 9);
  for (int b = 0; b < 3; ++b) {
    CHECK(got[b][8].item<float>() == 0);
    for (int i = 0; i < 4; ++i) {
      auto angle = steps[b].item<double>() * std::pow(10000.0, -i / 4.0);
      CHECK(std::abs(got[b][i].item<double>() - std::cos(angle)) < 1e-4);
      CHECK(std::abs(got[b][4 + i].item<double>() - std::sin(angle)) < 1e-4);
    }
  }
}
