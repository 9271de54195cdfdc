#include "distorch/placement/parts.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "distorch/placement/auto_plan.h"
#include "distorch/placement/plan.h"
#include "distorch/placement/tables.h"
#include "machines.h"

using namespace distorch;
using namespace distorch::placement;

namespace {

constexpr std::int64_t kMatrix = 3072 * 3072 * 2;  // bytes of one in bfloat16

/// FLUX.1's blocks and weights; `step_s` of compute, a double block 2.2 times a single one.
Model flux(double step_s) {
  Model model{.name = "flux", .activation_bytes = gib(0.6)};
  const double single = step_s / (19 * 2.2 + 38);
  const auto add = [&](const std::string& name, double seconds, std::vector<std::int64_t> parts) {
    parts.insert(parts.begin(), 200'000);  // norms and biases
    Block block{.name = name, .seconds = {seconds}, .activation_bytes = 1 << 24};
    block.bytes = std::accumulate(parts.begin(), parts.end(), std::int64_t{0});
    block.parts = std::move(parts);
    block.restart_s = 1e-5;
    block.unpack_s = 1e-5 + static_cast<double>(block.bytes) / 4e12;
    model.blocks.push_back(std::move(block));
  };
  for (int i = 0; i < 19; ++i) {
    std::vector<std::int64_t> parts;
    for (int stream = 0; stream < 2; ++stream)
      for (int matrices : {6, 3, 1, 4, 4}) parts.push_back(matrices * kMatrix);
    add("double." + std::to_string(i), 2.2 * single, parts);
  }
  for (int i = 0; i < 38; ++i)
    add("single." + std::to_string(i), single, {3 * kMatrix, 7 * kMatrix, 5 * kMatrix});
  return model;
}

Model whole(Model model) {
  for (Block& block : model.blocks) block.parts.clear();
  return model;
}

System card(double free_gb) {
  System system;
  system.devices = {{"cuda:0", gib(139), static_cast<std::int64_t>(free_gb * 1e9)},
                    {"cpu", gib(256), gib(256)}};
  system.links = {{"cpu", "cuda:0", 55e9, 8e-6}};
  return system;
}

}  // namespace

TEST_CASE("parts: a block that rests in part is charged to both devices and takes less of a ring") {
  auto system = card(24);
  Model model{.name = "two"};
  for (int i = 0; i < 2; ++i)
    model.blocks.push_back({.name = "b", .bytes = 100, .seconds = {1}, .parts = {10, 30, 60}});
  auto placement =
      make_placement(system, model, {{1, How::Streamed, 0b011}, {1, How::Streamed, 0b111}});
  CHECK(placement.bytes == std::vector<std::int64_t>{140, 60});
  CHECK(placement.rings == std::vector<RingSize>{{1, 1, 60}});
  CHECK(placement.blocks[1] == Home{0, How::Resident});
  CHECK(resting_bytes(model.blocks[0], placement.blocks[0]) == 40);
  CHECK(streamed_bytes(model.blocks[0], placement.blocks[0]) == 60);
}

TEST_CASE("parts: only what streams is copied and unpacked") {
  auto system = card(24);
  system.links[0] = {"cpu", "cuda:0", 100};
  Model model{.name = "one"};
  model.blocks.push_back({.name = "b",
                          .bytes = 100,
                          .seconds = {0.25},
                          .unpack_s = 0.5,
                          .restart_s = 0.1,
                          .parts = {20, 80}});
  Timeline clock(system, model);
  auto report = clock.report(make_placement(system, model, {{1, How::Streamed, 0b10}}, 1));
  CHECK(report.streamed_bytes == 20);
  CHECK(report.compute_s == doctest::Approx(0.25 + 0.1 + 0.4 * 0.2));
  CHECK(report.step_s == doctest::Approx(0.2 + 0.43));
}

TEST_CASE("parts: a plan fills the budget, stays within it and is at its bound") {
  for (double free_gb : {4.0, 8.0, 14.0, 20.0, 23.0}) {
    for (double seconds : {0.042, 0.13, 0.4}) {
      CAPTURE(free_gb);
      CAPTURE(seconds);
      auto system = card(free_gb);
      auto model = flux(seconds);
      auto placement = auto_plan(system, model);
      const auto budget = static_cast<double>(system.devices[0].budget_bytes);
      const auto peak = static_cast<double>(placement.peak_bytes());
      CHECK(peak <= budget);
      CHECK(peak >= 0.985 * budget);
      Timeline clock(system, model);
      auto report = clock.report(placement, 0);
      const double bound = std::max(seconds, static_cast<double>(report.streamed_bytes) / 55e9);
      MESSAGE(free_gb << " GB, " << seconds << " s: " << report.step_s << " s, "
                      << report.step_s / bound << " of the bound, "
                      << static_cast<double>(report.streamed_bytes) / 1e9 << " GB streamed, ring "
                      << static_cast<double>(placement.ring_bytes()) / 1e9 << " GB of "
                      << placement.rings[0].slots << " slots");
      CHECK(report.step_s <= 1.02 * bound);
      auto coarse = whole(model);
      const double before = Timeline(system, coarse).step_s(auto_plan(system, coarse));
      MESSAGE("whole blocks: " << before << " s");
      CHECK(report.step_s <= before * (1 + 1e-9));
    }
  }
}

TEST_CASE("parts: a ring of less than two slots where copies take longer than computing") {
  auto system = card(4);
  auto model = flux(0.1);  // of 0.4 s on the link
  const auto placement = auto_plan(system, model);
  REQUIRE(placement.rings.size() == 1);
  CHECK(placement.rings[0].slots > 1);
  CHECK(placement.rings[0].slots < 2);
  CHECK(placement.rings[0].bytes() < 2 * placement.rings[0].slot_bytes);
  Timeline clock(system, model);
  // The same weights with one slot wait for every block; two slots have no room beside them.
  CHECK(clock.step_s(placement) <= 1.005 * clock.report(placement, 0).bound_s);
  CHECK(clock.step_s(make_placement(system, model, placement.blocks, 1)) >
        1.1 * clock.step_s(placement));
  CHECK(make_placement(system, model, placement.blocks, 2).peak_bytes() >
        system.devices[0].budget_bytes);
  // Its expert string finds a ring that fits, too.
  const auto again =
      plan(system, model, parse_full_allocation(expert_string(system, model, placement)));
  CHECK(again.bytes == placement.bytes);
  CHECK(clock.step_s(again) <= 1.01 * clock.step_s(placement));
}

TEST_CASE("parts: what is small rests before anything large does") {
  auto model = flux(0.1);
  auto placement = auto_plan(card(6), model);
  for (std::size_t i = 0; i < model.blocks.size(); ++i) {
    const Home& home = placement.blocks[i];
    CHECK((home.how == How::Resident || (home.rests & 1)));
  }
}

TEST_CASE("parts: an allocation is met to the last small weight") {
  auto system = card(24);
  auto model = flux(0.13);
  for (const char* text : {"cuda:0,30%;cpu,70%", "cuda:0,7gb;cpu,*", "#cuda:0;5;cpu", "cpu,*"}) {
    CAPTURE(text);
    auto allocation = parse_full_allocation(text);
    allocation.compute = "cuda:0";
    auto asked = quotas(system, model, allocation);
    auto placement = plan(system, model, allocation);
    CHECK(std::abs(placement.bytes[0] - asked[0]) < kMatrix);
    CHECK(placement.bytes[0] + placement.bytes[1] == model.bytes());
    CHECK(placement.peak_bytes() <= system.devices[0].budget_bytes);
    auto coarse = whole(model);
    auto before = plan(system, coarse, allocation);
    CHECK(placement.ring_bytes() <= before.ring_bytes());
  }
}

TEST_CASE("parts: an expert string asks for the same bytes again") {
  auto system = card(17);
  auto model = flux(0.13);
  auto placement = auto_plan(system, model);
  auto text = expert_string(system, model, placement);
  CAPTURE(text);
  auto asked = quotas(system, model, parse_full_allocation(text));
  CHECK(asked == placement.bytes);
}

TEST_CASE("parts: random models and machines, weights placed apart, within every budget") {
  Random random(31);
  int planned = 0, better = 0;
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    auto system = random_system(random);
    auto coarse = random_model(random, system);
    coarse.activation_bytes = coarse.bytes() / 20;
    system.devices[system.compute].budget_bytes =
        static_cast<std::int64_t>(static_cast<double>(coarse.bytes()) * random.real(0.2, 0.9));
    auto model = coarse;
    for (Block& block : model.blocks) {
      auto left = block.bytes;
      for (int i = random.whole(0, 6); i > 0; --i) {
        block.parts.push_back(
            static_cast<std::int64_t>(static_cast<double>(left) * random.real(0, 0.6)));
        left -= block.parts.back();
      }
      block.parts.push_back(left);
    }
    Placement placement;
    try {
      placement = auto_plan(system, model);
    } catch (const std::exception&) {
      CHECK_THROWS(auto_plan(system, coarse));
      continue;
    }
    ++planned;
    CHECK(placement == make_placement(system, model, placement.blocks,
                                      placement.rings.empty() ? 2 : placement.rings[0].slots));
    std::int64_t sum = 0;
    for (std::size_t d = 0; d < placement.bytes.size(); ++d) {
      sum += placement.bytes[d];
      if (static_cast<int>(d) != system.compute)
        CHECK(placement.bytes[d] <= system.devices[d].budget_bytes);
    }
    CHECK(sum == model.bytes());
    CHECK(placement.peak_bytes() <= system.devices[system.compute].budget_bytes);
    try {
      const double before = Timeline(system, coarse).step_s(auto_plan(system, coarse));
      const double after = Timeline(system, model).step_s(placement);
      better += after < before * 0.999 ? 1 : 0;
    } catch (const std::exception&) {
      ++better;
    }
  }
  MESSAGE(planned << " planned, " << better << " better than whole blocks");
  CHECK(planned > 40);
  CHECK(better > 4);
}
