#include "distorch/streaming/contents.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/sim/sim.h"
#include "tests/streaming/toy_model.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr int blocks = 6;
constexpr std::int64_t width = 64;

/// Writes a toy model whose matrices are 8-bit numbers with a scale each, and the same in float32.
struct Packed8 {
  explicit Packed8(toy::Folder& folder, bool marked) {
    toy::Model model(blocks, width);
    std::vector<std::pair<std::string, at::Tensor>> plain, packed;
    auto generator = at::make_generator<at::CPUGeneratorImpl>(11);
    for (const auto& weight : model.manifest().weights()) {
      auto values = at::randn(weight.shape, generator) / 8;
      if (weight.shape.size() == 1) {
        plain.emplace_back(weight.name, values);
        packed.emplace_back(weight.name, values);
        continue;
      }
      auto scale = (values.abs().max() / 448).to(at::kFloat);
      auto bytes = (values / scale).to(at::kFloat8_e4m3fn);
      auto base = weight.name.substr(0, weight.name.size() - 6);
      plain.emplace_back(weight.name, bytes.to(at::kFloat) * scale);
      packed.emplace_back(weight.name, bytes);
      packed.emplace_back(base + (marked ? "weight_scale" : "scale_weight"), scale);
      if (!marked) continue;
      std::string text = R"({"format": "float8_e4m3fn"})";
      packed.emplace_back(base + "comfy_quant",
                          at::tensor(std::vector<std::uint8_t>(text.begin(), text.end())));
    }
    if (!marked) packed.emplace_back("scaled_fp8", at::zeros({0}).to(at::kFloat8_e4m3fn));
    this->plain = folder.write(plain, "plain.safetensors");
    this->packed = folder.write(packed, marked ? "marked.safetensors" : "packed.safetensors");
  }
  weights::Checkpoint plain, packed;
};

at::Tensor run(const weights::Checkpoint& checkpoint, const std::vector<BlockHome>& homes,
               const std::string& compute, bool converted) {
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), checkpoint, {.name = "toy", .compute = compute});
  streamed.rest_converted(converted);
  streamed.load(homes);
  auto x = at::ones({3, width}).to(at::Device(compute));
  return model.forward(model.forward(x)).cpu();
}

std::vector<BlockHome> all(How how, const std::string& device) {
  return std::vector<BlockHome>(blocks, {how, device});
}

}  // namespace

TEST_CASE("packed weights: every placement computes what the decoded ones would, at file size") {
  toy::Folder folder;
  for (bool marked : {false, true}) {
    Packed8 files(folder, marked);
    CHECK(files.packed.tensors().size() == files.plain.tensors().size());
    auto wanted = run(files.plain, all(How::Resident, "cpu"), "cpu", false);
    for (bool converted : {false, true}) {
      CHECK(at::equal(run(files.packed, all(How::Resident, "cpu"), "cpu", converted), wanted));
      CHECK(at::equal(run(files.packed, all(How::Streamed, "disk"), "cpu", converted), wanted));
      sim::install(toy::rig(2, std::int64_t{1} << 22), sim::Mode::Exec);
      for (const auto& home : {BlockHome{How::Resident, "sim:0"}, BlockHome{How::Streamed, "cpu"},
                               BlockHome{How::Streamed, "sim:1"}, BlockHome{How::OnDonor, "sim:1"}})
        CHECK(at::equal(run(files.packed, std::vector<BlockHome>(blocks, home), "sim:0", converted),
                        wanted));
    }
  }
}

TEST_CASE("packed weights rest and travel as the file has them unless they are to be converted") {
  toy::Folder folder;
  Packed8 files(folder, true);
  sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), files.packed, {.name = "toy", .compute = "sim:0"});
  const std::int64_t stored = width * width + width * 4 + 4, dense = (width * width + width) * 4;
  constexpr std::int64_t rounding = 3 * 512;  // an allocation, and two runs
  CHECK(streamed.needs_conversion());
  CHECK(std::abs(streamed.file_bytes(0) - stored) < rounding);
  CHECK(std::abs(streamed.resident_bytes(0) - stored) < rounding);
  streamed.load(all(How::Resident, "sim:0"));
  CHECK(streamed.device_bytes("sim:0") <= blocks * (stored + rounding));
  streamed.rest_converted(true);
  CHECK(streamed.resident_bytes(0) == dense);
  streamed.load(all(How::Resident, "sim:0"));
  CHECK(streamed.device_bytes("sim:0") >= blocks * dense);
  streamed.rest_converted(false);
  streamed.load(all(How::Streamed, "cpu"));
  CHECK(streamed.device_bytes("sim:0") <= 2 * (stored + rounding));
}

TEST_CASE(
    "weights that are to be kept in 8 bits: the same numbers wherever they rest, half the bytes") {
  toy::Folder folder;
  toy::Model model(blocks, width);
  auto file = folder.write(model, at::kBFloat16);
  std::vector<std::pair<std::string, at::Tensor>> rounded;
  for (const auto& [name, stored] : file.tensors())
    rounded.emplace_back(name,
                         weights::mapped_tensor(stored).to(at::kFloat8_e4m3fn).to(at::kFloat));
  auto wanted =
      run(folder.write(rounded, "rounded.safetensors"), all(How::Resident, "cpu"), "cpu", false);
  auto kept = [&](const BlockHome& home, const std::string& compute, bool converted) {
    toy::Model other(blocks, width);
    StreamedModel streamed(other.manifest(), file,
                           {.name = "toy", .compute = compute, .kept_in = at::kFloat8_e4m3fn});
    streamed.rest_converted(converted);
    streamed.load(std::vector<BlockHome>(blocks, home));
    if (converted && home.how == How::Resident && compute != "cpu")
      CHECK(streamed.device_bytes(compute) <= blocks * (width * width + width + 3 * 512));
    auto x = at::ones({3, width}).to(at::Device(compute));
    return other.forward(other.forward(x)).cpu();
  };
  for (bool converted : {false, true}) {
    CHECK(at::equal(kept({How::Resident, "cpu"}, "cpu", converted), wanted));
    CHECK(at::equal(kept({How::Streamed, "disk"}, "cpu", converted), wanted));
    sim::install(toy::rig(2, std::int64_t{1} << 22), sim::Mode::Exec);
    for (const auto& home : {BlockHome{How::Resident, "sim:0"}, BlockHome{How::Streamed, "cpu"},
                             BlockHome{How::OnDonor, "sim:1"}})
      CHECK(at::equal(kept(home, "sim:0", converted), wanted));
  }
}

TEST_CASE("packed weights of a model that is kept in 8 bits stay packed, converted or not") {
  toy::Folder folder;
  Packed8 files(folder, true);
  toy::Model model(blocks, width);
  for (bool converted : {false, true}) {
    StreamedModel streamed(model.manifest(), files.packed,
                           {.name = "toy", .kept_in = at::kFloat8_e4m3fn});
    streamed.rest_converted(converted);
    streamed.load(all(How::Resident, "cpu"));
    auto x = at::ones({3, width});
    model.forward(x);
    CHECK(streamed.resident_bytes(0) < 2 * (width * width + width * 4));
  }
}

TEST_CASE("a marker of an unknown way of packing is refused with the weight's name") {
  toy::Folder folder;
  std::string text = R"({"format": "quasi8"})";
  CHECK_THROWS_WITH_AS(
      folder.write(
          {{"a.weight", at::zeros({2, 2}).to(at::kChar)},
           {"a.comfy_quant", at::tensor(std::vector<std::uint8_t>(text.begin(), text.end()))}},
          "odd.safetensors"),
      doctest::Contains("'a.weight' is packed as 'quasi8'"), Error);
}

TEST_CASE("rows of a packed weight take their part of scales that go by rows") {
  toy::Folder folder;
  auto values = at::arange(12, at::kFloat).view({4, 3}).to(at::kFloat8_e4m3fn);
  auto scale = at::tensor({1.f, 2.f, 3.f, 4.f}).view({4, 1});
  auto file = folder.write({{"a.weight", values}, {"a.weight_scale", scale}}, "rows.safetensors");
  file.add_rows("b.weight", *file.find("a.weight"), 1, 2);
  auto wanted = (values.to(at::kFloat) * scale).narrow(0, 1, 2);
  CHECK(at::equal(weights::read_dense(*file.find("b.weight"), at::kFloat), wanted));
}
