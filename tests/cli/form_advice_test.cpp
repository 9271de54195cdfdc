#include "distorch/cli/form_advice.h"

#include <doctest/doctest.h>

#include "distorch/placement/auto_plan.h"

using namespace distorch;
using namespace distorch::cli;

namespace {

/// Ten blocks of 1 GB in bf16, 1 ms each, on a device with room for `room` bytes beside a link of
/// 10 GB/s: a block takes 100 ms to come.
streaming::PlannedRun run_of(std::int64_t room) {
  streaming::PlannedRun run;
  constexpr std::int64_t block_bytes = 1'000'000'000;
  Rig rig;
  for (const char* name : {"sim:0", "cpu"}) {
    RigDevice device;
    device.name = name;
    device.memory_bytes = std::int64_t{64} << 30;
    rig.devices.push_back(device);
  }
  rig.links.push_back({.from = "cpu", .to = "sim:0", .bytes_per_s = 10e9});
  run.system = placement::system_of(rig, "sim:0");
  run.system.devices[run.system.compute].budget_bytes = room;
  for (int i = 0; i < 10; ++i) {
    placement::Block block{.name = std::to_string(i), .bytes = block_bytes};
    block.seconds.assign(run.system.devices.size(), -1);
    block.seconds[run.system.compute] = 1e-3;
    run.blocks.blocks.push_back(block);
  }
  run.placement = placement::auto_plan(run.system, run.blocks);
  return run;
}

}  // namespace

TEST_CASE("plan: a model that streams is told which forms would be faster, one that rests is not") {
  const std::vector<streaming::PlannedRun> runs{run_of(std::int64_t{2'200'000'000})};
  const auto priced = price_all(runs);
  const auto forms = faster_forms(priced.at(0), 16, 1e12);
  REQUIRE(forms.size() == 7);
  CHECK(forms.back().name == "packed");
  // Nearly all of a step is the link's, which carries 12.1 of 16 bits; decoding is the rest.
  CHECK(forms.back().times > 16 / 12.1 * 0.97);
  CHECK(forms.front().bits == 4.5);
  CHECK(forms.front().times > 3);
  CHECK(forms_text({{"Q4_K", 4.5, 1, 3.104}, {"packed", 12.1, 2, 1.3}}) ==
        "Q4_K 3.10 x as fast, packed 1.30 x");
  const std::vector<streaming::PlannedRun> whole{run_of(std::int64_t{30'000'000'000})};
  CHECK(faster_forms(price_all(whole).at(0), 16, 1e12).empty());
  CHECK(faster_forms(priced.at(0), 16, 0).empty());
}
