#include "distorch/streaming/ring.h"

#include <doctest/doctest.h>

#include <set>

#include "distorch/device/device.h"
#include "tests/streaming/toy_model.h"
#include "tests/support/devices.h"

using namespace distorch;
using namespace distorch::streaming;

TEST_CASE(
    "a ring is back where it stood after a few steps and fetches nothing twice, whatever the sizes "
    "of "
    "its blocks") {
  sim::install(test::small_rig());
  // Rows of 64 float32 values; as unlike as those of a UNet.
  const std::vector<std::vector<std::int64_t>> cases = {
      {40, 7, 7, 90, 13, 13, 200, 30, 30, 260, 260, 180, 180, 120, 60, 60, 20, 20, 5},
      {40, 7, 7, 90, 13, 13, 200, 30, 30, 260, 260, 180, 180, 120, 60, 60, 20, 20},
      {260, 5, 5, 5, 260},
      {1, 300, 2, 300, 3, 300, 4},
      {64, 64, 64, 64, 64},
      {64, 64, 64, 64}};
  for (const auto& rows : cases) {
    weights::Manifest manifest;
    weights::Scope root(manifest);
    for (std::size_t i = 0; i < rows.size(); ++i)
      (root / "blocks" / static_cast<int>(i)).block().weight("weight", {rows[i], 64});
    toy::Folder folder;
    StreamedModel model(manifest, folder.write(manifest, 64, at::kFloat),
                        {.name = "toy", .compute = "sim:0"});
    for (int slots : {1, 2, 3, 4}) {
      std::vector<RingBlock> blocks;
      for (std::size_t i = 0; i < rows.size(); ++i)
        blocks.push_back({static_cast<int>(i), &model.layout(static_cast<int>(i)), {}, {}});
      RingOptions options;
      options.compute = device::to_torch("sim:0");
      options.slots = slots;
      options.registered = false;
      auto ring = make_ring(blocks, options);
      std::vector<std::string> seen;
      constexpr int settled = 4, steps = 24;
      std::int64_t copied = 0, unforeseen = 0;
      for (int step = 0; step < steps; ++step) {
        if (step == settled) {
          copied = ring->copied_bytes();
          unforeseen = ring->unforeseen_bytes();
        }
        for (std::size_t i = 0; i < rows.size(); ++i) auto lease = ring->pin(static_cast<int>(i));
        auto at = ring->position();
        std::string text = std::to_string(at.last_filled) + " " + std::to_string(at.round);
        for (const auto& [index, offset] : at.fresh)
          text += " " + std::to_string(index) + "@" + std::to_string(offset);
        seen.push_back(text);
      }
      CAPTURE(slots);
      CAPTURE(rows.size());
      CHECK(std::set<std::string>(seen.begin() + settled, seen.end()).size() <= 2);
      // Every block once a step, none asked for before it was on its way.
      std::int64_t most = ring->capacity_bytes();
      CHECK(std::abs(ring->copied_bytes() - copied -
                     (steps - settled) * model.total_file_bytes()) <= most);
      CHECK(ring->unforeseen_bytes() == unforeseen);
    }
  }
}
