#include "distorch/weights/manifest.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/joined.h"
#include "tests/support/plain_source.h"
#include "tests/support/tensor_files.h"

using namespace distorch;
using namespace distorch::weights;
using at::Tensor;

namespace {

/// A manifest of one weight, and a handle to it.
struct One {
  Manifest manifest;
  Weight weight;
  One() { weight = Scope(manifest).block("only").weight("w", {4, 3}); }
  Slot& slot() { return manifest.slot(0); }
};

quant::Packed in_8_bits(const Tensor& value, double scale) {
  return {&quant::float8_e4m3fn(),
          value.to(at::kFloat8_e4m3fn),
          {at::full({}, scale, at::kFloat), Tensor()},
          value.sizes().vec()};
}

quant::Packed in_pieces(const Tensor& first, const Tensor& second) {
  auto shape = first.sizes().vec();
  shape[0] += second.size(0);
  return {&quant::joined(), first, {second}, shape};
}

}  // namespace

TEST_CASE("weight: dtype is the model's, else the stored one, float32 for packed numbers") {
  One one;
  one.slot().value = at::ones({4, 3}, at::kBFloat16);
  CHECK((one.weight.dtype() == at::kBFloat16));
  CHECK(one.weight.dense().is_same(one.slot().value));
  one.manifest.compute_with({.dtype = at::kHalf});
  CHECK((one.weight.dtype() == at::kHalf));
  CHECK((one.weight.dense().scalar_type() == at::kHalf));
  one.manifest.compute_with({});
  one.slot().packed = std::make_shared<quant::Packed>(in_8_bits(at::ones({4, 3}), 2));
  CHECK((one.weight.dtype() == at::kFloat));
  CHECK(at::equal(one.weight.dense(), at::full({4, 3}, 2.0f)));
}

TEST_CASE("weight: numbers are rounded to the type they are kept in before they are used") {
  One one;
  // 1 + 1/16 has no place among float8_e4m3fn's eighths, and less than bfloat16's 1/128 is lost.
  one.slot().value = at::full({4, 3}, 1.0f + 1.0f / 16 + 1.0f / 1024);
  auto rounded = one.slot().value.to(at::kFloat8_e4m3fn).to(at::kFloat);
  CHECK_FALSE(at::equal(rounded, one.slot().value));
  one.manifest.compute_with({.dtype = at::kFloat, .kept_in = at::kFloat8_e4m3fn});
  CHECK(at::equal(one.weight.dense(), rounded));
  CHECK(at::equal(one.weight.rows(1, 2), rounded.narrow(0, 1, 2)));
  // Pieces of one weight are rounded as the whole is, and are no packed weight for a layer.
  auto pieces = in_pieces(one.slot().value.narrow(0, 0, 1), one.slot().value.narrow(0, 1, 3));
  one.slot() = {.packed = std::make_shared<quant::Packed>(pieces), .shape = {4, 3}};
  CHECK(one.weight.packed() != nullptr);
  CHECK_FALSE(at::equal(one.weight.dense(), rounded));
  one.slot().arithmetic = {.dtype = at::kFloat, .kept_in = at::kFloat8_e4m3fn};
  CHECK(one.weight.packed() == nullptr);
  CHECK(at::equal(one.weight.dense(), rounded));
  CHECK(at::equal(one.weight.rows(0, 2), rounded.narrow(0, 0, 2)));
}

TEST_CASE("weight: a memory format is given where the numbers are converted") {
  Manifest manifest;
  auto weight = Scope(manifest).block("b").weight("w", {2, 3, 4, 5});
  manifest.slot(0).value = at::randn({2, 3, 4, 5});
  manifest.compute_with({.dtype = at::kHalf});
  CHECK(weight.dense(at::MemoryFormat::ChannelsLast).is_contiguous(at::MemoryFormat::ChannelsLast));
  CHECK(weight.dense().is_contiguous());
  manifest.slot(0).packed = std::make_shared<quant::Packed>(in_8_bits(at::randn({2, 3, 4, 5}), 1));
  CHECK(weight.dense(at::MemoryFormat::ChannelsLast).is_contiguous(at::MemoryFormat::ChannelsLast));
}

TEST_CASE("weight: an absent one and a handle to none are undefined, not an error") {
  One one;
  CHECK_FALSE(one.weight.dense().defined());
  CHECK_FALSE(one.weight.defined());
  CHECK(one.weight.declared());
  one.slot().value = at::ones({4, 3});
  CHECK(one.weight.defined());
  Weight none;
  CHECK_FALSE(none.declared());
  CHECK_FALSE(none.defined());
  CHECK_FALSE(none.dense().defined());
  CHECK_FALSE(none.for_fast_product().has_value());
  CHECK(none.packed() == nullptr);
}

TEST_CASE("weight: fast products take 8-bit matrices as they lie, and those kept in 8 bits") {
  One one;
  auto value = at::randn({4, 3});
  one.slot().value = value;
  CHECK_FALSE(one.weight.for_fast_product().has_value());
  one.manifest.compute_with({.dtype = at::kHalf, .fast_products = true});
  CHECK_FALSE(one.weight.for_fast_product().has_value());  // float32 as stored
  one.manifest.compute_with(
      {.dtype = at::kHalf, .kept_in = at::kFloat8_e5m2, .fast_products = true});
  CHECK_FALSE(one.weight.for_fast_product().has_value());  // the wrong 8 bits
  one.manifest.compute_with(
      {.dtype = at::kHalf, .kept_in = at::kFloat8_e4m3fn, .fast_products = true});
  auto packed = one.weight.for_fast_product();
  REQUIRE(packed.has_value());
  CHECK((packed->encoding == &quant::float8_e4m3fn()));
  CHECK(packed->shape == std::vector<std::int64_t>{4, 3});
  REQUIRE(packed->parts.size() == 2);
  CHECK_FALSE(packed->parts[0].defined());
  CHECK(at::equal(packed->values.to(at::kFloat), value.to(at::kFloat8_e4m3fn).to(at::kFloat)));
  one.slot().value = value.view({4, 3, 1});
  CHECK_FALSE(one.weight.for_fast_product().has_value());  // no matrix
  one.slot().packed = std::make_shared<quant::Packed>(in_8_bits(value, 3));
  REQUIRE(one.weight.for_fast_product().has_value());
  CHECK(one.weight.for_fast_product()->parts[0].item<float>() == 3);
}

TEST_CASE("manifest: blocks run on the source that is attached, and say so without one") {
  Manifest manifest;
  auto scope = Scope(manifest, "net");
  auto first = (scope / "a").block(), second = (scope / "b" / 7).block("named");
  (first / "x").weight("weight", {1});
  (second / "y").weight("weight", {1});
  CHECK(first.prefix() == "net.a");
  CHECK((second / "y").prefix() == "net.b.7.y");
  CHECK(manifest.blocks() == std::vector<std::string>{"net.a", "named"});
  Block block(second);
  CHECK(block.id() == 1);
  CHECK(Block().id() == -1);
  auto add = [](const Tensors& in) { return in[0] + in[1]; };
  CHECK(test::refusal([&] { block.run1({at::ones({1}), at::ones({1})}, add); }) ==
        "internal|net.a|has no weights attached");
  test::PlainSource source(manifest, [](const Declared& weight) { return at::ones(weight.shape); });
  CHECK(block.run1({at::ones({1}), at::full({1}, 4.0f)}, add).item<float>() == 5);
  CHECK(test::refusal([&] { scope.weight("loose", {1}); }) ==
        "internal|net.loose|was declared outside of any block");
  CHECK(manifest.weights().size() == 2);
}
