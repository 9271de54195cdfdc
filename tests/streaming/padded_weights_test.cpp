#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/quant/encoding.h"
#include "distorch/quant/quantize.h"
#include "distorch/streaming/streamed_model.h"
#include "tests/streaming/toy_model.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr std::int64_t out = 20, in = 40;

/// One matrix.
struct Model {
  weights::Manifest manifest;
  weights::Scope scope = weights::Scope(manifest).block("all");
  weights::Block block{scope};
  weights::Weight weight = scope.weight("weight", {out, in});
};

using Make = quant::Packed (*)(const at::Tensor&);

/// A file of a weight that is filled up with zeros to that shape.
weights::Checkpoint file_of(toy::Folder& folder, Make make, const at::Tensor& weight,
                            std::int64_t rows, std::int64_t columns) {
  auto packed = make(at::constant_pad_nd(weight, {0, columns - in, 0, rows - out}));
  std::vector<std::pair<std::string, at::Tensor>> tensors{{"weight", packed.values}};
  for (std::size_t part = 0; part < packed.parts.size(); ++part)
    if (packed.parts[part].defined())
      tensors.emplace_back(packed.encoding->companions()[part].names.back(), packed.parts[part]);
  auto text = packed.encoding->marker();
  tensors.emplace_back("comfy_quant",
                       at::tensor(std::vector<std::uint8_t>(text.begin(), text.end())));
  return folder.write(tensors, "padded.safetensors");
}

at::Tensor weight_of(const weights::Checkpoint& file, const BlockHome& home,
                     const std::string& compute) {
  Model model;
  StreamedModel streamed(model.manifest, file, {.name = "toy", .compute = compute});
  streamed.load({home});
  auto x = at::zeros({1}).to(at::Device(compute));
  return model.block.run1({x}, [&](const weights::Tensors&) { return model.weight.dense(); }).cpu();
}

}  // namespace

TEST_CASE("padded weights: rows and columns that a writer filled up with zeros are left out") {
  const auto weight = at::randn({out, in});
  for (auto [make, multiple] :
       {std::pair<Make, int>{&quant::to_nvfp4, 16}, {&quant::to_mxfp8, 32}}) {
    CAPTURE(multiple);
    toy::Folder folder;
    auto file = file_of(folder, make, weight, 32, multiple == 16 ? 48 : 64);
    auto padded = at::constant_pad_nd(weight, {0, (multiple == 16 ? 48 : 64) - in, 0, 32 - out});
    auto wanted = quant::decode(make(padded), at::kFloat).narrow(0, 0, out).narrow(1, 0, in);
    CHECK(at::equal(weight_of(file, {How::Resident, "cpu"}, "cpu"), wanted));
    CHECK(at::equal(weight_of(file, {How::Streamed, "disk"}, "cpu"), wanted));
    sim::install(toy::rig(1, std::int64_t{1} << 22), sim::Mode::Exec);
    CHECK(at::equal(weight_of(file, {How::Resident, "sim:0"}, "sim:0"), wanted));
    CHECK(at::equal(weight_of(file, {How::Streamed, "cpu"}, "sim:0"), wanted));
  }
}

TEST_CASE("padded weights: any other shape is refused with both") {
  const auto weight = at::randn({out, in});
  toy::Folder folder;
  Model model;
  for (auto [rows, columns] : {std::pair(48, 48), std::pair(32, 64)}) {
    auto file = file_of(folder, &quant::to_nvfp4, weight, rows, columns);
    CHECK_THROWS_WITH_AS(StreamedModel(model.manifest, file, {.name = "toy", .compute = "cpu"}),
                         doctest::Contains("where [20, 40] is needed"), Error);
  }
}
