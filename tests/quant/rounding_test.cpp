#include "distorch/quant/rounding.h"

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "distorch/formats/safetensors.h"
#include "tests/support/source_dir.h"

using namespace distorch;

namespace {

/// A float32 tensor of tests/parity/rounding.safetensors.
at::Tensor dumped(const std::string& name) {
  static const auto file =
      formats::read_safetensors(test::source_dir().string() + "/tests/parity/rounding.safetensors");
  const auto* info = file.find(name);
  REQUIRE(info);
  auto bytes = file.bytes(*info);
  return at::from_blob(const_cast<std::byte*>(bytes.data()), info->shape, at::kFloat).clone();
}

}  // namespace

TEST_CASE("rounding by chance: the seed of a name gives ComfyUI's numbers") {
  auto json = nlohmann::json::parse(
      std::ifstream(test::source_dir().string() + "/tests/parity/rounding.json"));
  auto seed = quant::crc32_of(json["name"].get<std::string>());
  CHECK(seed == json["seed"].get<std::uint32_t>());
  for (auto type : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    auto got = quant::round_by_chance(dumped("x"), type, seed).to(at::kFloat);
    CHECK(at::equal(got, dumped(type == at::kFloat8_e5m2 ? "e5m2" : "e4m3fn")));
  }
}

TEST_CASE("rounding by chance: small differences survive on average, whatever the shape") {
  auto x = at::full({64, 256}, 1.01);
  auto rounded = quant::round_by_chance(x, at::kFloat8_e4m3fn, 1).to(at::kFloat);
  CHECK(rounded.mean().item<double>() == doctest::Approx(1.01).epsilon(0.002));
  CHECK(quant::round_by_chance(at::empty({0}), at::kFloat8_e5m2, 1).numel() == 0);
  auto one = quant::round_by_chance(at::tensor(2.0f), at::kFloat8_e5m2, 1);
  CHECK(one.to(at::kFloat).item<float>() == 2.0f);
}
