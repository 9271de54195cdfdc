#include "distorch/streaming/carried.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <doctest/doctest.h>

#include "distorch/device/sim/sim.h"
#include "tests/streaming/toy_model.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

// Before main() nobody knows the name "sim".
const at::Device here(c10::DeviceType::PrivateUse1, 0), there(c10::DeviceType::PrivateUse1, 1);

struct Simulated {
  Simulated() { sim::install(toy::rig(2, std::int64_t{1} << 24), sim::Mode::Exec); }
  // As nodes run.
  c10::InferenceMode inference;
};

std::int64_t bytes_into_second() { return sim::finish(), sim::work(1).bytes_in; }

}  // namespace

TEST_CASE("carried: what a donor gave is taken there again while nobody has changed it") {
  Simulated simulated;
  Carried carried;
  auto x = at::ones({4, 8}).to(here);
  auto sent = carried.send({x, at::Tensor()}, there);
  CHECK(sent[0].device() == there);
  CHECK(!sent[1].defined());
  auto results = carried.fetch({sent[0] + 1, at::Tensor()}, here);
  CHECK(results[0].device() == here);
  CHECK(!results[1].defined());
  const auto before = bytes_into_second();
  auto again = carried.send({results[0], x}, there);
  // Only x, which it did not give.
  CHECK(bytes_into_second() - before == x.numel() * 4);
  CHECK(at::equal(again[0].cpu(), results[0].cpu()));
  carried.clear();
  CHECK(bytes_into_second() - before == x.numel() * 4);
  carried.send({results[0]}, there);
  CHECK(bytes_into_second() - before == 2 * x.numel() * 4);
}

TEST_CASE("carried: what is changed in place between blocks, itself or a view of it, goes again") {
  Simulated simulated;
  for (bool view : {false, true}) {
    CAPTURE(view);
    Carried carried;
    auto results = carried.fetch({at::ones({4, 8}).to(there)}, here);
    if (view)
      results[0].narrow(0, 0, 2).add_(5);
    else
      results[0].add_(5);
    auto again = carried.send(results, there);
    CHECK(at::equal(again[0].cpu(), results[0].cpu()));
    CHECK(again[0].cpu()[0][0].item<float>() == 6);
  }
}

TEST_CASE("carried: a block in between that takes something else changes nothing") {
  Simulated simulated;
  Carried carried;
  auto results = carried.fetch({at::ones({4, 8}).to(there)}, here);
  auto others = carried.fetch({at::ones({2}).to(there)}, here);
  const auto before = bytes_into_second();
  carried.send({results[0], others[0]}, there);
  CHECK(bytes_into_second() == before);
  SUBCASE("what nobody holds any more takes no memory of the donor") {
    const auto held = sim::memory(1).in_use;
    results.clear();
    carried.forget_gone();
    sim::finish();
    CHECK(sim::memory(1).in_use < held);
    carried.send({others[0]}, there);
    CHECK(bytes_into_second() == before);
  }
}

TEST_CASE("carried: blocks in a row on a donor get their activations over the link once") {
  Simulated simulated;
  constexpr int blocks = 6;
  constexpr std::int64_t width = 64, rows = 32;
  toy::Folder folder;
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0"});
  std::vector<BlockHome> homes(blocks, {How::Resident, "sim:0"});
  auto x = at::ones({rows, width}).to(here);
  streamed.load(homes);
  const auto wanted = model.forward(x).cpu();
  for (int i = 2; i < blocks; ++i) homes[i] = {How::OnDonor, "sim:1"};
  streamed.load(homes);
  const auto before = bytes_into_second();
  CHECK(at::equal(model.forward(x).cpu(), wanted));
  CHECK(bytes_into_second() - before == rows * width * 4);
}
