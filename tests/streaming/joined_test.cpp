#include "distorch/quant/joined.h"

#include <doctest/doctest.h>

#include "distorch/device/sim/sim.h"
#include "tests/models/tiny.h"
#include "tests/streaming/toy_model.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::streaming;
using at::Tensor;
using placement::How;

namespace {

constexpr int kBlocks = 3;
constexpr std::int64_t kWidth = 64;

/// The weights of a toy model in three pieces each, in another order in the file. Those of the
/// matrices are multiples of 256 bytes, those of the biases are not.
weights::Checkpoint in_pieces(toy::Folder& folder, toy::Model& model, at::ScalarType dtype) {
  const auto whole = folder.write(model, dtype, "whole.safetensors");
  std::vector<std::pair<std::string, Tensor>> tensors;
  const std::pair<const char*, std::pair<int, int>> rows[] = {
      {"b", {16, 16}}, {"c", {32, 32}}, {"a", {0, 16}}};
  for (const auto& [name, stored] : whole.tensors())
    for (const auto& [piece, range] : rows)
      tensors.emplace_back(
          name + "." + piece,
          weights::read_dense(stored, dtype).narrow(0, range.first, range.second).contiguous());
  auto checkpoint = folder.write(tensors, "pieces.safetensors");
  for (const auto& [name, stored] : whole.tensors()) {
    std::vector<weights::Stored> pieces;
    for (const char* piece : {".a", ".b", ".c"}) pieces.push_back(*checkpoint.find(name + piece));
    checkpoint.add_joined(name, pieces);
  }
  return checkpoint;
}

Tensor run(const std::vector<BlockHome>& homes, bool pieces, const StreamedOptions& options,
           at::ScalarType stored) {
  sim::install(toy::rig(2, std::int64_t{1} << 22), sim::Mode::Exec);
  toy::Folder folder;
  toy::Model model(kBlocks, kWidth);
  auto checkpoint = pieces ? in_pieces(folder, model, stored) : folder.write(model, stored);
  StreamedModel streamed(model.manifest(), checkpoint, options);
  streamed.load(homes);
  auto x = at::ones({5, kWidth}, at::TensorOptions().dtype(options.dtype));
  x = x.to(device::to_torch(options.compute));
  return model.forward(model.forward(x)).cpu();
}

std::vector<BlockHome> all(How how, const std::string& device) {
  return std::vector<BlockHome>(kBlocks, {how, device});
}

}  // namespace

TEST_CASE("joined: pieces lie one behind the other in a slot, where slots can be aligned") {
  toy::Folder folder;
  toy::Model model(kBlocks, kWidth);
  auto checkpoint = in_pieces(folder, model, at::kFloat);
  StreamedModel streamed(model.manifest(), checkpoint, {.name = "toy", .compute = "cpu"});
  const auto& contents = streamed.contents();
  for (int block = 0; block < kBlocks; ++block) {
    const auto& layout = contents.weights_of(block);
    for (const auto& stretch : layout.stretches)
      CHECK(stretch.slot_offset % stretch_alignment == 0);
    auto buffer = at::zeros({layout.slot_bytes}, at::kByte);
    for (const auto& item : layout.items)
      view_item(buffer, item).copy_(weights::mapped_tensor(item.stored));
    auto values = contents.values(block, view_items(buffer, layout));
    for (const auto& slot : values) {
      const auto& declared = model.manifest().weights()[slot.weight];
      const bool matrix = declared.shape.size() == 2;
      CHECK(slot.value.defined() == matrix);
      CHECK((slot.packed == nullptr) == matrix);
      if (matrix)
        CHECK(at::equal(slot.value,
                        weights::read_dense(*checkpoint.find(declared.name), at::kFloat)));
    }
    CHECK_FALSE(is_one_tensor(*checkpoint.find("blocks.0.bias")));
  }
}

TEST_CASE("joined: every placement gives the bits of the same weights in one piece") {
  for (auto [stored, dtype] : {std::pair(at::kFloat, at::kFloat), {at::kHalf, at::kFloat}}) {
    const StreamedOptions options{.name = "toy", .compute = "sim:0", .dtype = dtype};
    const auto whole = run(all(How::Resident, "sim:0"), false, options, stored);
    for (const auto& [how, device] : {std::pair(How::Resident, "sim:0"),
                                      {How::Streamed, "cpu"},
                                      {How::Streamed, "disk"},
                                      {How::Streamed, "sim:1"},
                                      {How::OnDonor, "sim:1"}}) {
      CAPTURE(device);
      CHECK(at::equal(run(all(how, device), true, options, stored), whole));
    }
  }
}

TEST_CASE("joined: pieces are kept in the type that a user asked for, as one tensor is") {
  for (const char* compute : {"sim:0", "cpu"}) {
    const StreamedOptions options{
        .name = "toy", .compute = compute, .dtype = at::kFloat, .kept_in = at::kFloat8_e4m3fn};
    const auto whole = run(all(How::Resident, compute), false, options, at::kFloat);
    CHECK(at::equal(run(all(How::Resident, compute), true, options, at::kFloat), whole));
  }
}
