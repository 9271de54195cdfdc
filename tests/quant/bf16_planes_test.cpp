#include "distorch/quant/bf16_planes.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "tests/support/devices.h"

using namespace distorch;
using at::Tensor;
using quant::Packed;

namespace {

/// Weights as training leaves them: normal, each row with a spread of its own.
Tensor normal(std::vector<std::int64_t> shape, int seed = 5) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  auto rows = at::rand({shape[0], 1}, generator) * 0.04 + 0.005;
  return (at::randn(shape, generator).flatten(1) * rows).view(shape).to(at::kBFloat16);
}

/// Numbers with these bits.
Tensor of_bits(const Tensor& bits, std::vector<std::int64_t> shape) {
  return bits.to(at::kShort).view(at::kBFloat16).view(shape);
}

Tensor bits_of(const Tensor& numbers) { return numbers.contiguous().view(at::kShort); }

bool same_bits(const Tensor& a, const Tensor& b) { return at::equal(bits_of(a), bits_of(b)); }

/// As bits too: a NaN of bf16 keeps its payload in float32.
bool same_wide(const Tensor& wide, const Tensor& numbers) {
  auto bits = wide.contiguous().view(at::kInt);
  auto wanted = bits_of(numbers).to(at::kInt).bitwise_left_shift(16);
  return at::equal(bits, wanted);
}

double bits_each(const Packed& packed) {
  double bytes = static_cast<double>(packed.values.nbytes());
  for (const auto& part : packed.parts) bytes += static_cast<double>(part.nbytes());
  return 8 * bytes / static_cast<double>(packed.values.numel());
}

void check_round_trip(const Tensor& weight) {
  auto packed = quant::pack_bf16(weight);
  REQUIRE(packed);
  CHECK(same_bits(quant::decode(*packed, at::kBFloat16), weight));
  CHECK(same_wide(quant::decode(*packed, at::kFloat), weight));
  for (bool wide : {false, true}) {
    auto by_torch =
        quant::unpack_bf16_by_torch(packed->values, packed->parts[0], packed->parts[1], wide);
    CHECK((wide ? same_wide(by_torch, weight) : same_bits(by_torch, weight)));
  }
}

}  // namespace

TEST_CASE("bf16_planes: normal weights take a little more than 12 bits, every shape comes back") {
  for (auto shape : std::vector<std::vector<std::int64_t>>{
           {64, 3072}, {3072, 64}, {5, 12288}, {16, 8, 3, 3}, {7, 131}, {3, 99}, {1, 4096}}) {
    CAPTURE(shape.size());
    CAPTURE(shape[1]);
    check_round_trip(normal(shape));
  }
  CHECK(bits_each(*quant::pack_bf16(normal({256, 3072}))) < 12.15);
  CHECK(bits_each(*quant::pack_bf16(normal({64, 12288}))) < 12.1);
}

TEST_CASE("bf16_planes: every bit pattern comes back") {
  // 16 exponents a row, with all signs and mantissas: NaN, infinities, denormals and zeros are among
  // them.
  auto all = at::arange(1 << 16);
  auto exponent = all.bitwise_right_shift(7).bitwise_and(255);
  for (std::int64_t first = 0; first < 256; first += 16) {
    auto some = all.masked_select((exponent >= first).logical_and(exponent < first + 16));
    auto mixed = some.index_select(
        0, at::randperm(some.numel(), at::make_generator<at::CPUGeneratorImpl>(3)));
    check_round_trip(of_bits(mixed, {4, -1}));
  }
  // Every pattern once in one row of ordinary numbers, that is as escapes.
  auto row = bits_of(normal({1, 1 << 20})).flatten().clone();
  row.narrow(0, 1 << 19, 1 << 16).copy_(all.to(at::kShort));
  check_round_trip(of_bits(row, {1, -1}));
  // Zeros alone, and one number that is unlike all others.
  check_round_trip(at::zeros({4, 256}, at::kBFloat16));
  auto odd = normal({4, 4096});
  odd.select(0, 3).narrow(0, 4095, 1).fill_(1e30);
  check_round_trip(odd);
}

TEST_CASE("bf16_planes: what would not become smaller stays plain") {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(8);
  auto random = at::randint(0, 1 << 16, {64, 1024}, generator);
  CHECK_FALSE(quant::pack_bf16(of_bits(random, {64, 1024})));
  CHECK_FALSE(quant::pack_bf16(normal({64, 1}).flatten()));
  CHECK_FALSE(quant::pack_bf16(normal({64, 16})));
  CHECK_FALSE(quant::pack_bf16(normal({4, 64}).to(at::kHalf)));
  CHECK_FALSE(quant::pack_bf16(at::empty({0, 64}, at::kBFloat16)));
  CHECK_FALSE(quant::pack_bf16(at::empty({64, 0}, at::kBFloat16)));
}

TEST_CASE(
    "bf16_planes: rows are cut without touching the others, products are the plain weight's") {
  auto weight = normal({12, 96});
  weight.select(0, 4).narrow(0, 0, 2).fill_(3e20);
  auto packed = *quant::pack_bf16(weight);
  auto some = packed.rows(3, 5);
  CHECK(some.shape == std::vector<std::int64_t>{5, 96});
  CHECK(same_bits(quant::decode(some, at::kBFloat16), weight.narrow(0, 3, 5)));
  weight = normal({12, 96});
  packed = *quant::pack_bf16(weight);
  auto x = at::randn({2, 96}, at::make_generator<at::CPUGeneratorImpl>(9));
  CHECK(at::equal(quant::linear(x, packed, {}), at::linear(x, weight.to(at::kFloat))));
}

TEST_CASE("bf16_planes: parts that do not fit each other are refused") {
  auto packed = *quant::pack_bf16(normal({8, 256}));
  auto decode = [&](Packed other) { return quant::decode(other, at::kBFloat16); };
  auto cut = packed;
  cut.parts[0] = packed.parts[0].narrow(1, 0, 100).contiguous();
  CHECK_THROWS_WITH_AS(decode(cut), doctest::Contains("weight_codes has shape [8, 100] where"),
                       Error);
  cut = packed;
  cut.parts[1] = packed.parts[1].narrow(1, 0, 7).contiguous();
  CHECK_THROWS_WITH_AS(decode(cut), doctest::Contains("weight_exponents has shape [8, 7]"), Error);
  cut = packed;
  cut.parts[1] = packed.parts[1].to(at::kFloat);
  CHECK_THROWS_WITH_AS(decode(cut), doctest::Contains("are bytes"), Error);
  // Places of entries may be anything: beyond the row they are none.
  auto entries = at::randint(0, 256, {8, 16 + 64}, at::make_generator<at::CPUGeneratorImpl>(2));
  cut = packed;
  cut.parts[1] = entries.to(at::kByte);
  CHECK(decode(cut).sizes() == at::IntArrayRef{8, 256});
}

TEST_CASE("bf16_planes: simulated devices compute it, dry runs know its shape") {
  sim::install(test::small_rig(1));
  const c10::Device device(c10::DeviceType::PrivateUse1, 0);
  auto weight = normal({32, 256});
  auto there = quant::pack_bf16(weight)->to(device);
  CHECK(same_bits(quant::decode(there, at::kBFloat16).cpu(), weight));
  sim::DryScope dry;
  auto shape = quant::decode(there, at::kFloat);
  CHECK(shape.sizes() == weight.sizes());
  CHECK((shape.scalar_type() == at::kFloat));
}
