#include "distorch/device/token_ops.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::device;
using at::Tensor;

namespace {

constexpr auto kDouble = at::kDouble;

double relative(const Tensor& got, const Tensor& wanted) {
  REQUIRE(got.sizes() == wanted.sizes());
  return ((got.cpu().to(kDouble) - wanted).norm() / wanted.norm()).item<double>();
}

/// The heads by their definition, in float64.
Tensor by_definition(const Tensor& x, const Tensor& weight, double eps, bool norm,
                     const RopeTable* rope) {
  auto y = x.to(kDouble);
  if (norm) y = y / (y.square().mean(-1, true) + eps).sqrt();
  if (weight.defined()) y = y * weight.to(kDouble);
  if (!rope) return y;
  const auto half = x.size(-1) / 2;
  auto index = at::arange(half);
  auto first = rope->halves ? index : index * 2,
       second = rope->halves ? index + half : index * 2 + 1;
  auto c = rope->cos.to(kDouble).unsqueeze(2), s = rope->sin.to(kDouble).unsqueeze(2);
  auto a = y.index_select(-1, first), b = y.index_select(-1, second);
  auto out = at::empty_like(y);
  out.index_copy_(-1, first, a * c - b * s);
  out.index_copy_(-1, second, a * s + b * c);
  return out;
}

const std::vector<std::pair<at::ScalarType, double>> kTypes = {
    {at::kFloat, 1e-6}, {at::kHalf, 1e-3}, {at::kBFloat16, 8e-3}};

}  // namespace

TEST_CASE("any device: a modulated norm of tokens, with one or many rows of shift and scale") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(6);
  for (auto [dtype, tolerance] : kTypes)
    for (std::int64_t width : {64, 3072, 5120, 18, 20000})
      for (std::int64_t rows : {1, 7})
        for (std::int64_t batch : {1, 2}) {
          CAPTURE(c10::toString(dtype));
          CAPTURE(width);
          CAPTURE(rows);
          auto whole = (at::randn({2, 9, width}, generator) * 3 + 1).to(dtype);
          // A slice of a longer sequence: rows are not one after the other over the batch.
          auto x = whole.narrow(1, 1, 7);
          auto shift = at::randn({batch, rows, width}, generator).to(dtype);
          auto scale = at::randn({batch, rows, width}, generator).to(dtype);
          auto wanted =
              at::layer_norm(x.to(kDouble), {width}, {}, {}, 1e-6) * (1 + scale.to(kDouble)) +
              shift.to(kDouble);
          auto there = whole.to(device).narrow(1, 1, 7);
          auto y = modulated_norm(there, shift.to(device), scale.to(device), 1e-6);
          CHECK((y.scalar_type() == dtype));
          CHECK(y.is_contiguous());
          CHECK(relative(y, wanted) < tolerance);
        }
}

TEST_CASE("any device: a layer norm with weights, of tokens, rows and slices") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(13);
  for (auto [dtype, tolerance] : kTypes)
    for (std::int64_t width : {8, 320, 1280, 5120, 20}) {
      CAPTURE(c10::toString(dtype));
      CAPTURE(width);
      auto whole = (at::randn({2, 9, width}, generator) * 3 + 1).to(dtype);
      auto weight = at::randn({width}, generator).to(dtype);
      auto bias = at::randn({width}, generator).to(dtype);
      auto norm = [&](const Tensor& x) {
        return at::layer_norm(x.to(kDouble), {width}, weight.to(kDouble), bias.to(kDouble), 1e-5);
      };
      const auto there = whole.to(device);
      for (const auto& x : {there, there.narrow(1, 1, 7), there.view({18, width})}) {
        auto y = weighted_norm(x, weight.to(device), bias.to(device), 1e-5);
        CHECK((y.scalar_type() == dtype));
        CHECK(y.is_contiguous());
        CHECK(y.sizes() == x.sizes());
        CHECK(relative(y, norm(x.cpu())) < tolerance);
      }
    }
}

TEST_CASE("any device: a gated sum of tokens, with one or many rows of the gate") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(9);
  for (auto [dtype, tolerance] : kTypes)
    for (std::int64_t width : {64, 3072, 20})
      for (std::int64_t rows : {1, 7})
        for (std::int64_t batch : {1, 2}) {
          CAPTURE(c10::toString(dtype));
          CAPTURE(width);
          CAPTURE(rows);
          auto whole = at::randn({2, 9, width}, generator).to(dtype);
          auto y = at::randn({2, 7, width}, generator).to(dtype);
          // One of six chunks of a modulation.
          auto modulation = at::randn({batch, rows, 6 * width}, generator).to(dtype);
          auto chunk = [&](const Tensor& all) { return all.narrow(-1, 2 * width, width); };
          auto wanted =
              whole.narrow(1, 1, 7).to(kDouble) + chunk(modulation).to(kDouble) * y.to(kDouble);
          auto got = gated_add(whole.to(device).narrow(1, 1, 7), chunk(modulation.to(device)),
                               y.to(device));
          CHECK((got.scalar_type() == dtype));
          CHECK(relative(got, wanted) < tolerance);
        }
}

TEST_CASE("any device: activations of a slice, behind other numbers or alone") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(10);
  for (auto [dtype, tolerance] : kTypes)
    for (std::int64_t width : {64, 3072, 20})
      for (std::int64_t before : {0, 24, 10})
        for (auto activation : {Activation::GeluTanh, Activation::SwiGlu, Activation::GeGlu}) {
          CAPTURE(c10::toString(dtype));
          CAPTURE(width);
          CAPTURE(before);
          const auto wide = activation == Activation::GeluTanh ? width : 2 * width;
          // What a product gave: 16 numbers of something else come first in every row.
          auto product = at::randn({2, 7, 16 + wide}, generator).to(dtype);
          auto left = at::randn({2, 9, std::max<std::int64_t>(before, 1)}, generator).to(dtype);
          auto part = [&](const Tensor& all) { return all.narrow(-1, 16, wide); };
          auto x = part(product).to(kDouble);
          Tensor wanted;
          if (activation == Activation::GeluTanh) wanted = at::gelu(x, "tanh");
          if (activation == Activation::SwiGlu)
            wanted = at::silu(x.narrow(-1, 0, width)) * x.narrow(-1, width, width);
          if (activation == Activation::GeGlu)
            wanted = x.narrow(-1, 0, width) * at::gelu(x.narrow(-1, width, width));
          if (before == 0) {
            // Of rows alone, as layers have them that know of no batch.
            auto rows = activated({}, part(product.to(device)).reshape({-1, wide}), activation);
            CHECK(rows.sizes() == at::IntArrayRef({14, width}));
            CHECK(relative(rows, wanted.view({14, width})) < tolerance);
          }
          if (before) wanted = at::cat({left.narrow(1, 1, 7).to(kDouble), wanted}, -1);
          auto got = activated(before ? left.to(device).narrow(1, 1, 7) : Tensor(),
                               part(product.to(device)), activation);
          CHECK((got.scalar_type() == dtype));
          CHECK(got.is_contiguous());
          CHECK(relative(got, wanted) < tolerance);
        }
}

TEST_CASE("any device: a product that ends with GELU, of rows of a larger weight") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(12);
  for (auto [dtype, tolerance] : kTypes)
    for (std::int64_t width : {64, 3072})
      for (bool has_bias : {true, false}) {
        CAPTURE(c10::toString(dtype));
        CAPTURE(width);
        CAPTURE(has_bias);
        auto x = at::randn({2, 7, width}, generator).to(dtype);
        auto all = at::randn({3 * width, width}, generator)
                       .div_(std::sqrt(static_cast<double>(width)))
                       .to(dtype);
        auto biases = at::randn({3 * width}, generator).to(dtype);
        auto part = [&](const Tensor& rows) { return rows.narrow(0, width, 2 * width); };
        auto product = at::matmul(x.to(kDouble), part(all).to(kDouble).t());
        if (has_bias) product += part(biases).to(kDouble);
        auto got = linear_gelu(x.to(device), part(all.to(device)),
                               has_bias ? part(biases.to(device)) : Tensor());
        CHECK((got.scalar_type() == dtype));
        CHECK(got.is_contiguous());
        CHECK(relative(got, at::gelu(product, "tanh")) < std::max(tolerance, 5e-6));
      }
}

TEST_CASE("any device: heads are normalised and turned by their positions") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
  for (auto [dtype, tolerance] : kTypes)
    for (std::int64_t width : {16, 128, 640})
      for (bool halves : {false, true})
        for (std::int64_t batch : {1, 2}) {
          CAPTURE(c10::toString(dtype));
          CAPTURE(width);
          CAPTURE(halves);
          // Queries, keys and values of one product side by side: heads are slices of its rows.
          auto product = at::randn({2, 11, 3 * 3 * width}, generator).to(dtype);
          const auto heads_of = [&](const Tensor& all) {
            return all.view({2, 11, 3, 3, width}).select(2, 1);
          };
          auto weight = (at::randn({width}, generator) + 1).to(dtype);
          auto angles = at::randn({batch, 11, width / 2}, generator) * 3;
          const RopeTable rope{angles.cos(), angles.sin(), halves};
          const RopeTable rope_there{rope.cos.to(device), rope.sin.to(device), halves};
          auto there = heads_of(product.to(device));
          for (bool norm : {false, true})
            for (bool turned : {false, true})
              for (bool weighted : {false, true}) {
                if (!norm && !turned) continue;
                auto w = weighted ? weight : Tensor();
                auto wanted =
                    by_definition(heads_of(product), w, 1e-5, norm, turned ? &rope : nullptr);
                auto y = prepared_heads(there, {.weight = weighted ? weight.to(device) : Tensor(),
                                                .norm = norm,
                                                .eps = 1e-5,
                                                .rope = turned ? &rope_there : nullptr});
                CHECK((y.scalar_type() == dtype));
                CHECK(relative(y, wanted) < tolerance);
              }
          // Copied between the heads of others, which stay.
          auto shared = at::zeros({2, 20, 3, width}, there.options());
          prepare_heads_into(shared.narrow(1, 4, 11), there, {.norm = false});
          auto all = at::zeros({2, 20, 3, width}, at::TensorOptions().dtype(dtype));
          all.narrow(1, 4, 11).copy_(heads_of(product));
          CHECK(at::equal(shared.cpu(), all));
        }
}

TEST_CASE("any device: an RMS norm keeps the shape") {
  c10::InferenceMode inference;
  const auto device = test::test_device();
  auto generator = at::make_generator<at::CPUGeneratorImpl>(8);
  for (auto [dtype, tolerance] : kTypes)
    for (std::int64_t width : {48, 3840, 7}) {
      auto x = at::randn({3, 5, width}, generator).to(dtype);
      auto weight = at::randn({width}, generator).to(dtype);
      auto y = rms_norm(x.to(device), weight.to(device), 1e-6);
      CHECK(relative(y, by_definition(x, weight, 1e-6, true, nullptr)) < tolerance);
      CHECK(relative(rms_norm(x.to(device), {}, 1e-6), by_definition(x, {}, 1e-6, true, nullptr)) <
            tolerance);
    }
}
