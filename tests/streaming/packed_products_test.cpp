// Weights that layers multiply as they lie: the same results wherever they rest, at file size.
#include <doctest/doctest.h>

#include "distorch/device/sim/sim.h"
#include "distorch/quant/encoding.h"
#include "distorch/quant/quantize.h"
#include "distorch/streaming/streamed_model.h"
#include "tests/streaming/toy_model.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr int blocks = 5;
constexpr std::int64_t width = 256;

/// Residual matrices that are multiplied as they lie where that is possible, else decoded.
struct Model {
  struct Layer {
    weights::Block block;
    weights::Weight weight;
  };
  weights::Manifest manifest;
  std::vector<Layer> layers;

  Model() {
    weights::Scope root(manifest);
    for (int i = 0; i < blocks; ++i) {
      auto scope = (root / "blocks" / i).block();
      layers.push_back({weights::Block(scope), scope.weight("weight", {width, width})});
    }
  }

  at::Tensor forward(at::Tensor x) const {
    for (const auto& layer : layers)
      x = layer.block.run1({x}, [&](const weights::Tensors& in) {
        const auto* packed = layer.weight.packed();
        auto y = packed ? packed->encoding->product(in[0], *packed, {}) : at::Tensor();
        return in[0] + at::tanh(y.defined() ? y : at::linear(in[0], layer.weight.dense()));
      });
    return x;
  }
};

using Make = std::function<quant::Packed(const at::Tensor&)>;

weights::Checkpoint file_of(toy::Folder& folder, const Make& make) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(4);
  for (int i = 0; i < blocks; ++i) {
    auto packed = make(at::randn({width, width}, generator) / 16);
    auto base = "blocks." + std::to_string(i) + ".";
    tensors.emplace_back(base + "weight", packed.values);
    for (std::size_t part = 0; part < packed.parts.size(); ++part)
      if (packed.parts[part].defined())
        tensors.emplace_back(base + packed.encoding->companions()[part].names.back(),
                             packed.parts[part]);
    auto text = packed.encoding->marker();
    tensors.emplace_back(base + "comfy_quant",
                         at::tensor(std::vector<std::uint8_t>(text.begin(), text.end())));
  }
  return folder.write(tensors, "packed.safetensors");
}

at::Tensor run(const weights::Checkpoint& file, const BlockHome& home, const std::string& compute,
               bool converted, std::int64_t* resident_bytes = nullptr) {
  Model model;
  StreamedModel streamed(model.manifest, file, {.name = "toy", .compute = compute});
  streamed.rest_converted(converted);
  streamed.load(std::vector<BlockHome>(blocks, home));
  auto x = at::randn({9, width}, at::make_generator<at::CPUGeneratorImpl>(5));
  auto y = model.forward(model.forward(x.to(at::Device(compute)))).cpu();
  if (resident_bytes) *resident_bytes = streamed.resident_bytes(0);
  return y;
}

}  // namespace

TEST_CASE("packed products: bit-identical in every placement, converted or not, at file size") {
  const std::vector<std::pair<Make, double>> kinds = {
      {[](const at::Tensor& w) { return quant::to_int8(w, true, 256); }, 1},
      {[](const at::Tensor& w) { return quant::to_int8(w, false, 0); }, 1},
      {[](const at::Tensor& w) { return quant::to_convrot_w4a4(w, 64); }, 0.5},
      {[](const at::Tensor& w) { return quant::to_nvfp4(w); }, 0.5625},
      {[](const at::Tensor& w) { return quant::to_mxfp8(w); }, 1.03125}};
  for (const auto& [make, bytes] : kinds) {
    toy::Folder folder;
    auto file = file_of(folder, make);
    const auto* encoding = file.find("blocks.0.weight")->encoding;
    CAPTURE(std::string(encoding->name()));
    auto wanted = run(file, {How::Resident, "cpu"}, "cpu", false);
    for (bool converted : {false, true}) {
      std::int64_t resident = 0;
      CHECK(at::equal(run(file, {How::Resident, "cpu"}, "cpu", converted, &resident), wanted));
      if (!converted || encoding->rests_packed())
        CHECK(static_cast<double>(resident) <= bytes * width * width + 5 * 512 + 4 * width);
      CHECK(at::equal(run(file, {How::Streamed, "disk"}, "cpu", converted), wanted));
      sim::install(toy::rig(2, std::int64_t{1} << 22), sim::Mode::Exec);
      for (const auto& home : {BlockHome{How::Resident, "sim:0"}, BlockHome{How::Streamed, "cpu"},
                               BlockHome{How::Streamed, "sim:1"}, BlockHome{How::OnDonor, "sim:1"}})
        CHECK(at::equal(run(file, home, "sim:0", converted), wanted));
    }
  }
}
