#include <doctest/doctest.h>

#include <filesystem>

#include "distorch/base/error.h"
#include "distorch/device/memory.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/nn/adapters/chain.h"
#include "distorch/nn/conv.h"
#include "distorch/nn/embedding.h"
#include "distorch/nn/linear.h"
#include "distorch/nn/patch.h"
#include "distorch/quant/fp8.h"
#include "distorch/weights/lora.h"
#include "tests/support/devices.h"
#include "tests/support/dump.h"

using namespace distorch;
using at::Tensor;
using weights::Adapter;
using weights::AdapterKind;
using weights::Part;

namespace {

/// The dump of every kind (tests/parity/make_adapters.py): files of one layer's tensors, and what
/// ComfyUI makes of its weight with them.
class Adapters {
 public:
  explicit Adapters(const std::string& name = "adapters")
      : dump_(test::load_dump(name)),
        cases_(test::load_manifest(name).at("cases")),
        file_(std::make_shared<formats::TensorFile>(
            formats::open_tensor_file(test::parity_dir() / (name + ".safetensors")))) {}

  const nlohmann::json& cases() const { return cases_; }
  const Tensor& at(const std::string& name) const { return dump_.at(name); }
  bool has(const std::string& name) const { return dump_.count(name) != 0; }

  /// The tensors of a case's first file.
  weights::Checkpoint file(const nlohmann::json& one) const {
    return file_.part(one.at("files")[0].get<std::string>());
  }

  /// The adapters of a case in a manifest whose first weight is the layer's, on its device.
  void put(const nlohmann::json& one, weights::Manifest& manifest, at::Device device) const {
    weights::LoraTarget target("layer.weight");
    if (one.contains("rows")) {
      target.first_row = one["rows"][0];
      target.rows = one["rows"][1];
    }
    target.swapped = one.value("swapped", false);
    for (std::size_t i = 0; i < one.at("files").size(); ++i) {
      auto part = file_.part(one.at("files")[i].get<std::string>());
      auto matched = weights::match_lora(part, {{"layer", target}}, manifest);
      INFO(one.dump());
      CHECK(matched.left_out.empty());
      CHECK(matched.unknown.empty());
      for (const auto& named : matched.adapters) {
        auto adapter = weights::read_adapter(named, device);
        adapter.strength = one.at("strengths")[i].get<double>();
        auto slot = named.weight == "layer.weight" ? 0 : 1;
        manifest.slot(slot).adapters.push_back(std::move(adapter));
      }
    }
  }

 private:
  test::Dump dump_;
  nlohmann::json cases_;
  weights::Checkpoint file_;
};

const Adapters& adapters() {
  static const Adapters all;
  return all;
}

/// The same kinds on parts of weights: some rows, or with their halves the other way round.
const Adapters& adapters_of_parts() {
  static const Adapters all("adapter_parts");
  return all;
}

/// A layer of the dump with its weight as stored, a bias of zeros, and no adapters yet.
template <typename Layer, typename... Args>
struct Made {
  Made(const Tensor& weight, at::Device device, Args... args)
      : layer(weights::Scope(manifest).block() / "layer", args...) {
    manifest.slot(0).value = weight.to(device);
    manifest.slot(1).value = at::zeros({weight.size(0)}, at::TensorOptions().device(device));
  }
  weights::Weight weight() { return weights::Weight(&manifest.slot(0)); }
  weights::Manifest manifest;
  Layer layer;
};

struct Result {
  Tensor product, whole;
};

/// What a layer computes with the case's adapters, and with ComfyUI's weight in their place.
template <typename Made>
std::pair<Result, Result> compare(Made& made, const nlohmann::json& one, const Tensor& x,
                                  const Adapters& from = adapters()) {
  auto name = one.at("name").get<std::string>();
  from.put(one, made.manifest, x.device());
  Result got{made.layer(x), nn::patched(made.weight())};
  // In tiles as small as they may be.
  auto in_tiles = nn::Chain(made.weight(), 60).whole();
  INFO(name << " in tiles");
  CHECK(test::relative_error(in_tiles, got.whole) < 2e-5);
  for (std::size_t i = 0; i < 2; ++i) made.manifest.slot(i).adapters.clear();
  made.manifest.slot(0).value = from.at(name + "/weight").to(x.device());
  if (from.has(name + "/bias"))
    made.manifest.slot(1).value = from.at(name + "/bias").to(x.device());
  return {got, {made.layer(x), made.manifest.slot(0).value}};
}

void check(const nlohmann::json& one, const std::pair<Result, Result>& results) {
  INFO(one.at("name").get<std::string>());
  CHECK(test::relative_error(results.first.product, results.second.product) < 2e-5);
  CHECK(test::relative_error(results.first.whole, results.second.whole) < 2e-5);
}

Tensor seeded(at::IntArrayRef shape) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(5));
}

}  // namespace

TEST_CASE("any device: every kind of adapter gives a linear layer ComfyUI's weight") {
  auto device = test::test_device();
  auto x = seeded({3, 7, 8}).to(device);
  int count = 0;
  for (const auto& one : adapters().cases()) {
    if (one.at("layer") != "linear") continue;
    ++count;
    Made<nn::Linear, int, int> made(adapters().at("linear/weight"), device, 8, 16);
    check(one, compare(made, one, x));
  }
  CHECK(count > 60);
}

TEST_CASE("any device: every kind of adapter on some rows, and turned, gives ComfyUI's weight") {
  auto device = test::test_device();
  auto x = seeded({3, 7, 8}).to(device);
  for (const auto& one : adapters_of_parts().cases()) {
    auto weight = adapters_of_parts().at(one.at("layer").get<std::string>() + "/weight");
    Made<nn::Linear, std::int64_t, std::int64_t> made(weight, device, 8, weight.size(0));
    check(one, compare(made, one, x, adapters_of_parts()));
  }
  CHECK(adapters_of_parts().cases().size() > 45);
}

TEST_CASE("any device: an adapter of a fused matrix changes its pieces") {
  auto device = test::test_device();
  auto x = seeded({3, 7, 8}).to(device);
  for (const auto& one : adapters().cases()) {
    auto name = one.at("name").get<std::string>();
    bool whole_only =
        name.find("oft") != std::string::npos || name.find("glora") != std::string::npos ||
        name.find("set") != std::string::npos || name.find("columns") != std::string::npos;
    if (one.at("layer") != "linear" || one.at("files").size() > 1 || whole_only) continue;
    INFO(name);
    auto file = adapters().file(one);
    // Sixteen rows in three pieces; a row of a Kronecker product's first factor stands for four.
    for (auto [first, count] : {std::pair{0, 8}, {8, 4}, {12, 4}}) {
      weights::LoraTarget target("layer.weight");
      target.piece = {first, count, 16};
      Made<nn::Linear, int, int> made(adapters().at("linear/weight").narrow(0, first, count),
                                      device, 8, count);
      auto matched = weights::match_lora(file, {{"layer", target}}, made.manifest);
      REQUIRE(matched.left_out.empty());
      for (const auto& named : matched.adapters) {
        auto adapter = weights::read_adapter(named, device);
        adapter.strength = one.at("strengths")[0];
        made.manifest.slot(named.weight == "layer.weight" ? 0 : 1).adapters = {adapter};
      }
      auto wanted = adapters().at(name + "/weight").narrow(0, first, count).to(device);
      CHECK(test::relative_error(nn::patched(made.weight()), wanted) < 2e-5);
      auto bias = adapters().has(name + "/bias")
                      ? adapters().at(name + "/bias").narrow(0, first, count).to(device)
                      : at::zeros({count}, wanted.options());
      CHECK(test::relative_error(made.layer(x), at::linear(x, wanted, bias)) < 2e-5);
    }
  }
}

TEST_CASE("any device: every kind of adapter gives a convolution ComfyUI's weight") {
  auto device = test::test_device();
  for (bool last : {false, true})
    for (const auto& one : adapters().cases()) {
      if (one.at("layer") != "conv") continue;
      auto x = seeded({2, 8, 6, 5}).to(device);
      if (last) x = x.contiguous(at::MemoryFormat::ChannelsLast);
      nn::ConvOptions options{.stride = last ? 2 : 1};
      Made<nn::Conv2d, int, int, nn::ConvOptions> made(adapters().at("conv/weight"), device, 8, 16,
                                                       options);
      check(one, compare(made, one, x));
    }
}

TEST_CASE("any device: every kind of adapter gives a 1x1 convolution ComfyUI's weight") {
  auto device = test::test_device();
  for (bool last : {false, true})
    for (const auto& one : adapters().cases()) {
      if (one.at("layer") != "conv1") continue;
      auto x = seeded({2, 8, 3, 4}).to(device);
      if (last) x = x.contiguous(at::MemoryFormat::ChannelsLast);
      Made<nn::Conv2d, int, int, nn::ConvOptions> made(adapters().at("conv1/weight"), device, 8, 16,
                                                       nn::pointwise);
      check(one, compare(made, one, x));
    }
}

TEST_CASE("adapters: a weight in small tiles, and one whose rows do not come one by one") {
  // Two rows of the convolution at a time; a rotation's four and a butterfly's sixteen do not fit.
  constexpr std::int64_t tile_bytes = 2 * 8 * 9 * 4;
  auto x = seeded({5, 8});
  for (const auto& one : adapters().cases()) {
    if (one.at("layer") != "linear") continue;
    for (auto bytes : {tile_bytes, std::int64_t{2 * 8 * 4}}) {
      Made<nn::Linear, int, int> made(adapters().at("linear/weight"), at::kCPU, 8, 16);
      adapters().put(one, made.manifest, at::kCPU);
      nn::Chain chain(made.weight(), bytes);
      auto wanted = adapters().at(one.at("name").get<std::string>() + "/weight");
      INFO(one.at("name").get<std::string>());
      CHECK(test::relative_error(chain.product(x, nn::LinearProducts(), {}),
                                 at::linear(x, wanted)) < 2e-5);
      CHECK(test::relative_error(chain.whole(), wanted) < 2e-5);
      auto ids = at::tensor({3, 0, 15, 3}, at::kLong);
      CHECK(test::relative_error(chain.rows(ids), wanted.index_select(0, ids)) < 2e-5);
    }
  }
  for (const auto& one : adapters().cases()) {
    if (one.at("layer") != "conv") continue;
    Made<nn::Conv2d, int, int, nn::ConvOptions> made(adapters().at("conv/weight"), at::kCPU, 8, 16,
                                                     nn::ConvOptions{});
    adapters().put(one, made.manifest, at::kCPU);
    auto wanted = adapters().at(one.at("name").get<std::string>() + "/weight");
    auto patches = seeded({7, 8 * 9});
    INFO(one.at("name").get<std::string>());
    // The weight as a matrix, as norms and the old GLoRA use it.
    CHECK(test::relative_error(
              nn::Chain(made.weight(), tile_bytes).product(patches, nn::LinearProducts(9), {}),
              at::linear(patches, wanted.flatten(1))) < 2e-5);
  }
}

TEST_CASE("adapters: packed weights give what their decoded numbers give") {
  for (const char* name : {"linear", "conv"}) {
    auto weight = adapters().at(std::string(name) + "/weight");
    quant::Packed packed{.encoding = &quant::float8_e4m3fn(),
                         .values = (weight * 20).to(at::kFloat8_e4m3fn),
                         .parts = {at::full({}, 0.05f), Tensor()},
                         .shape = weight.sizes().vec()};
    auto run = [&](auto& made, const nlohmann::json& one, const Tensor& x) {
      made.manifest.compute_with({.dtype = at::kFloat});
      adapters().put(one, made.manifest, at::kCPU);
      made.manifest.slot(0).value = quant::decode(packed, at::kFloat);
      auto wanted = made.layer(x);
      made.manifest.slot(0).value = Tensor();
      made.manifest.slot(0).packed = std::make_shared<const quant::Packed>(packed);
      INFO(one.at("name").get<std::string>());
      CHECK(test::relative_error(made.layer(x), wanted) < 1e-6);
    };
    for (const auto& one : adapters().cases()) {
      if (one.at("layer") != name) continue;
      if (weight.dim() == 2) {
        Made<nn::Linear, int, int> made(weight, at::kCPU, 8, 16);
        run(made, one, seeded({5, 8}));
      } else {
        Made<nn::Conv2d, int, int, nn::ConvOptions> made(weight, at::kCPU, 8, 16,
                                                         nn::ConvOptions{});
        run(made, one, seeded({1, 8, 5, 4}));
      }
    }
  }
}

TEST_CASE("any device: no kind of adapter needs a copy of the weight") {
  auto device = test::test_device();
  constexpr std::int64_t width = 512, weight_bytes = width * width * 4;
  auto random = [&](at::IntArrayRef shape) { return (seeded(shape) * 0.05).to(device); };
  std::map<std::string, Adapter> kinds{
      {"dora rows",
       {.kind = AdapterKind::LowRank,
        .parts = {{Part::Down, random({4, width})},
                  {Part::Up, random({width, 4})},
                  {Part::Magnitude, random({width, 1})}}}},
      {"dora columns",
       {.kind = AdapterKind::LowRank,
        .parts = {{Part::Down, random({4, width})},
                  {Part::Up, random({width, 4})},
                  {Part::Magnitude, random({1, width})}},
        .strength = 0.5}},
      {"loha",
       {.kind = AdapterKind::Hadamard,
        .parts = {{Part::W1a, random({width, 4})},
                  {Part::W1b, random({4, width})},
                  {Part::W2a, random({width, 4})},
                  {Part::W2b, random({4, width})}}}},
      {"lokr",
       {.kind = AdapterKind::Kronecker,
        .parts = {{Part::W1, random({8, 8})}, {Part::W2, random({64, 64})}}}},
      {"glora",
       {.kind = AdapterKind::Generalized,
        .parts = {{Part::A1, random({width, 4})},
                  {Part::A2, random({4, width})},
                  {Part::B1, random({width, 4})},
                  {Part::B2, random({4, width})}}}},
      {"oft", {.kind = AdapterKind::Rotation, .parts = {{Part::Blocks, random({64, 8, 8})}}}},
      {"boft", {.kind = AdapterKind::Butterfly, .parts = {{Part::Blocks, random({3, 64, 8, 8})}}}},
      {"diff",
       {.kind = AdapterKind::Difference, .parts = {{Part::Value, random({width, width})}}}}};
  weights::Manifest manifest;
  nn::Linear layer(weights::Scope(manifest).block() / "layer", width, width, false);
  manifest.slot(0).value = random({width, width});
  auto x = random({2, width});
  for (const auto& [name, adapter] : kinds) {
    // DoRA after another kind needs the norms of what that one left.
    for (bool is_second : {false, true}) {
      manifest.slot(0).adapters = {adapter};
      if (is_second) manifest.slot(0).adapters.push_back(kinds.at("dora columns"));
      nn::Chain chain(weights::Weight(&manifest.slot(0)), weight_bytes / 16);
      auto before = device::memory_use(device).in_use;
      device::reset_peak(device);
      chain.product(x, nn::LinearProducts(), {});
      INFO(name << (is_second ? ", then dora" : ""));
      CHECK(device::memory_use(device).peak - before < weight_bytes / 2);
    }
  }
}

TEST_CASE("adapters: a weight that is made wider first") {
  weights::Manifest manifest;
  nn::Linear layer(weights::Scope(manifest).block() / "layer", 5, 16, false);
  manifest.slot(0).value = adapters().at("wider/weight");
  const auto& one = adapters().cases().back();
  REQUIRE(one.at("layer").get<std::string>() == "wider");
  adapters().put(one, manifest, at::kCPU);
  auto x = seeded({3, 8});
  auto wanted = adapters().at("wider/wider_0.7/weight");
  CHECK(test::relative_error(layer(x), at::linear(x, wanted)) < 2e-5);
  CHECK(test::relative_error(nn::patched(weights::Weight(&manifest.slot(0))), wanted) < 2e-5);
}

TEST_CASE("adapters: an embedding looks changed rows up, with every kind") {
  auto ids = at::tensor({3, 0, 15, 3, 1, 2}, at::kLong).view({2, 3});
  for (const auto& one : adapters().cases()) {
    if (one.at("layer") != "linear") continue;
    weights::Manifest manifest;
    nn::Embedding layer(weights::Scope(manifest).block() / "layer", 16, 8);
    manifest.slot(0).value = adapters().at("linear/weight");
    auto plain = layer(ids);
    Made<nn::Linear, int, int> made(adapters().at("linear/weight"), at::kCPU, 8, 16);
    adapters().put(one, made.manifest, at::kCPU);
    manifest.slot(0).adapters = made.manifest.slot(0).adapters;
    auto wanted = adapters().at(one.at("name").get<std::string>() + "/weight");
    INFO(one.at("name").get<std::string>());
    CHECK(test::relative_error(layer(ids), at::embedding(wanted, ids)) < 2e-5);
    CHECK(test::relative_error(layer.first(5), wanted.narrow(0, 0, 5)) < 2e-5);
    CHECK(test::relative_error(layer(ids), plain) > 1e-3);
  }
}

TEST_CASE("adapters: 16-bit layers with 32-bit and 16-bit factors") {
  auto x = seeded({9, 8});
  for (auto dtype : {at::kBFloat16, at::kHalf})
    for (const auto& one : adapters().cases()) {
      if (one.at("layer") != "linear") continue;
      Made<nn::Linear, int, int> made(adapters().at("linear/weight").to(dtype), at::kCPU, 8, 16);
      made.manifest.slot(1).value = made.manifest.slot(1).value.to(dtype);
      adapters().put(one, made.manifest, at::kCPU);
      for (auto& adapter : made.manifest.slot(0).adapters)
        if (adapter.kind != AdapterKind::Rotation && adapter.kind != AdapterKind::Butterfly)
          for (auto& [part, tensor] : adapter.parts) tensor = tensor.to(at::kHalf);
      auto y = made.layer(x.to(dtype));
      REQUIRE(bool(y.scalar_type() == dtype));
      auto name = one.at("name").get<std::string>();
      auto wanted = at::linear(x, adapters().at(name + "/weight"));
      if (adapters().has(name + "/bias")) wanted = wanted + adapters().at(name + "/bias");
      INFO(name);
      CHECK(test::relative_error(y.to(at::kFloat), wanted) < 0.03);
    }
}

TEST_CASE("any device: an adapter of some rows of a weight changes these alone") {
  auto device = test::test_device();
  auto weight = seeded({12, 6}).to(device);
  auto value = seeded({4, 6}).to(device), x = seeded({3, 6}).to(device);
  auto up = seeded({4, 2}).to(device), down = seeded({2, 6}).to(device);
  const std::vector<std::pair<Adapter, Tensor>> cases = {
      {{.kind = AdapterKind::LowRank, .parts = {{Part::Up, up}, {Part::Down, down}}},
       at::mm(up, down)},
      {{.kind = AdapterKind::Difference, .parts = {{Part::Value, value}}}, value},
      {{.kind = AdapterKind::Hadamard,
        .parts = {{Part::W1a, up}, {Part::W1b, down}, {Part::W2a, up}, {Part::W2b, down}}},
       at::mm(up, down).square()},
  };
  for (auto [adapter, change] : cases) {
    CAPTURE(static_cast<int>(adapter.kind));
    adapter.first_row = 5;
    adapter.rows = 4;
    adapter.strength = 0.5;
    Made<nn::Linear, int, int> made(weight, device, 6, 12);
    auto wanted = weight.clone();
    for (std::int64_t row : {5, 1}) {
      adapter.first_row = row;
      made.manifest.slot(0).adapters.push_back(adapter);
      wanted.narrow(0, row, 4).add_(change, 0.5);
    }
    CHECK(test::relative_error(made.layer(x), at::linear(x, wanted)) < 2e-5);
    CHECK(test::relative_error(nn::patched(made.weight()), wanted) < 2e-5);
    auto ids = at::tensor({0, 2, 6, 11, 8}, at::kLong).to(device);
    CHECK(test::relative_error(nn::Chain(made.weight()).rows(ids), wanted.index_select(0, ids)) <
          2e-5);
    CHECK(test::relative_error(nn::Chain(made.weight(), 60).whole(), wanted) < 2e-5);
  }
}

TEST_CASE("any device: a magnitude of some rows counts for these alone") {
  const auto device = test::test_device();
  auto weight = seeded({24, 8}), x = seeded({3, 5, 8}).to(device);
  const std::int64_t first = 8, count = 8;
  Adapter adapter{.kind = AdapterKind::LowRank,
                  .parts = {{Part::Up, seeded({count, 2}).to(device)},
                            {Part::Down, seeded({2, 8}).to(device)},
                            {Part::Magnitude, (seeded({count, 1}).abs() + 0.5).to(device)}},
                  .strength = 0.7};
  // The rows alone, as a weight of their own.
  Made<nn::Linear, std::int64_t, std::int64_t> own(weight.narrow(0, first, count), device, 8,
                                                   count);
  own.manifest.slot(0).adapters = {adapter};
  auto wanted = weight.clone();
  wanted.narrow(0, first, count).copy_(nn::patched(own.weight()).cpu());
  Made<nn::Linear, std::int64_t, std::int64_t> all(weight, device, 8, 24);
  adapter.first_row = first;
  adapter.rows = count;
  all.manifest.slot(0).adapters = {adapter};
  CHECK(test::relative_error(nn::patched(all.weight()), wanted.to(device)) < 2e-5);
  CHECK(test::relative_error(all.layer(x), at::linear(x, wanted.to(device))) < 2e-5);
}
