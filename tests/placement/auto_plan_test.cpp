#include "distorch/placement/auto_plan.h"

#include <doctest/doctest.h>

#include <ctime>

#include "distorch/base/error.h"
#include "distorch/placement/baselines.h"
#include "distorch/placement/timeline.h"
#include "machines.h"

using namespace distorch;
using namespace distorch::placement;

namespace {

/// Of models that are in place side by side, one of which runs at a time.
std::int64_t peak_of_all(const AutoPlan& plan) {
  std::int64_t held = 0, activations = 0;
  for (const auto& placement : plan.placements) {
    held += placement.bytes[placement.compute] + placement.ring_bytes();
    activations = std::max(activations, placement.activation_bytes);
  }
  return held + activations;
}

void check_budgets(const System& system, const Model& model, const Placement& placement) {
  CHECK(placement.peak_bytes() <= system.devices[system.compute].budget_bytes);
  std::vector<std::int64_t> bytes(system.devices.size(), 0);
  std::vector<bool> runs(system.devices.size(), false);
  for (std::size_t i = 0; i < placement.blocks.size(); ++i) {
    bytes[placement.blocks[i].device] += model.blocks[i].bytes;
    if (placement.blocks[i].how == How::OnDonor) runs[placement.blocks[i].device] = true;
  }
  CHECK(bytes == placement.bytes);
  for (std::size_t d = 0; d < bytes.size(); ++d) {
    if (static_cast<int>(d) != system.compute) {
      CHECK(bytes[d] + (runs[d] ? model.activation_bytes : 0) <= system.devices[d].budget_bytes);
    }
  }
}

}  // namespace

TEST_CASE("auto: everything resident where it fits") {
  auto placement = auto_plan(two_cards(), even_model(20, gib(1), 0.1));
  for (const Home& home : placement.blocks) CHECK(home == Home{0, How::Resident});
  CHECK(placement.rings.empty());
}

TEST_CASE("auto: what does not fit streams and hides") {
  auto system = two_cards();
  system.devices.erase(system.devices.begin() + 1);  // no second card
  system.links = {{"cpu", "cuda:0", 12e9}};
  auto model = even_model(40, gib(1), 0.2);  // 8 s of compute; 18 GiB over the link: 1.6 s
  auto placement = auto_plan(system, model);
  CHECK(Timeline(system, model).step_s(placement) == doctest::Approx(8.0));
  check_budgets(system, model, placement);
}

TEST_CASE(
    "auto: never slower than what others would do, within every budget, on random machines and "
    "models") {
  Random random(2026);
  int planned = 0, faster = 0, refused = 0;
  double slowest_ms = 0;
  for (int round = 0; round < 150; ++round) {
    CAPTURE(round);
    System system = random_system(random);
    Model model = random_model(random, system);
    auto others = baselines(system, model);
    Placement placement;
    const std::clock_t start = std::clock();
    try {
      placement = auto_plan(system, model);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::OutOfMemory);
      CHECK(others.empty());
      ++refused;
      continue;
    }
    slowest_ms =
        std::max(slowest_ms, 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    check_budgets(system, model, placement);
    Timeline clock(system, model);
    const double ours = clock.step_s(placement);
    double best = LinkClock::kNever;
    for (const Named& other : others) {
      CAPTURE(other.name);
      check_budgets(system, model, other.placement);
      const double theirs = clock.step_s(other.placement);
      CHECK(ours <= theirs * (1 + 1e-9));
      best = std::min(best, theirs);
    }
    ++planned;
    faster += ours < best * 0.999 ? 1 : 0;
  }
  MESSAGE(planned << " planned, " << faster << " faster than all others, " << refused
                  << " refused, slowest " << slowest_ms << " ms of processor time");
  CHECK(planned > 80);
  CHECK(faster > 10);
}

TEST_CASE("auto: a block larger than the budget is named, with what would fit") {
  auto system = two_cards();
  system.devices[0].budget_bytes = gib(2);
  system.devices[1].budget_bytes = 0;
  auto model = even_model(4, gib(1), 0.1);
  model.activation_bytes = gib(0.5);
  model.blocks[2].bytes = gib(3);
  CHECK_THROWS_WITH(auto_plan(system, model),
                    "cuda:0: block 'block.2' of 'even' has 3.00 GiB, of the 2.00 GiB that may be "
                    "used 1.50 GiB are left; "
                    "blocks up to 1.50 GiB would fit");
  model.activation_bytes = gib(5);
  CHECK_THROWS_WITH(auto_plan(system, model),
                    "cuda:0: 'even' needs 5.00 GiB there for activations and weights that must "
                    "stay, 2.00 GiB may be used");
}

TEST_CASE("auto: one slot where two do not fit, smaller slots where large blocks can stay") {
  System system;
  system.devices = {{"cuda:0", gib(4), gib(4)}, {"cpu", gib(64), gib(64)}};
  system.links = {{"cpu", "cuda:0", 12e9}};
  auto model = even_model(4, gib(3), 0.1);
  auto placement = auto_plan(system, model);
  REQUIRE(placement.rings.size() == 1);
  CHECK(placement.rings[0].slots == 1);
  model = even_model(40, gib(0.1), 0.01);
  model.blocks[7].bytes = gib(2.5);
  placement = auto_plan(system, model);
  CHECK(placement.blocks[7] == Home{0, How::Resident});
  check_budgets(system, model, placement);
}

TEST_CASE("auto: the disk is left out where RAM will do, and used where it will not") {
  auto system = two_cards();
  system.devices[1].budget_bytes = 0;
  system.devices.push_back({"disk", gib(1000), gib(1000)});
  system.links.push_back({"disk", "cuda:0", 3e9});  // a way of its own, which would help
  const int disk = system.at("disk"), ram = system.at("cpu");
  const auto model = even_model(40, gib(1), 0.01);
  const auto from_disk = [&] {
    return auto_plan(system, model).bytes[static_cast<std::size_t>(disk)];
  };
  CHECK(from_disk() == 0);
  system.devices[static_cast<std::size_t>(ram)].budget_bytes = gib(10);
  CHECK(from_disk() > 0);
}

TEST_CASE("auto: a slow donor card loses against faster RAM") {
  auto system = two_cards(25e9, 1e9);
  system.devices[0].budget_bytes = gib(8);
  // the second card cannot compute it (no seconds given)
  auto model = even_model(20, gib(1), 0.05);
  auto placement = auto_plan(system, model);
  CHECK(placement.bytes[2] > 10 * placement.bytes[1]);
}

TEST_CASE(
    "auto: blocks run on a fast donor where streaming would cost more than the way of the "
    "activations") {
  auto system = two_cards(4e9, 4e9);
  system.devices[0].budget_bytes = gib(12);
  auto model = even_model(20, gib(1), 0.05);
  for (Block& block : model.blocks) block.seconds = {0.05, 0.05};
  auto placement = auto_plan(system, model);
  CHECK(Timeline(system, model).step_s(placement) < 1.05);
}

TEST_CASE("auto: several models stay side by side where they fit") {
  auto system = two_cards();
  std::vector<ModelUse> uses = {{even_model(10, gib(1), 0.1), 10},
                                {even_model(10, gib(1), 0.1), 10}};
  auto plan = auto_plan(system, uses);
  CHECK(plan.kept);
  CHECK(plan.total_s == doctest::Approx(20));
  for (auto& placement : plan.placements) CHECK(placement.bytes[0] == gib(10));
}

TEST_CASE("auto: several models share the budget by their steps, peak of all within it") {
  System system;
  system.devices = {{"cuda:0", gib(24), gib(20)}, {"cpu", gib(256), gib(256)}};
  system.links = {{"cpu", "cuda:0", 10e9}};
  std::vector<ModelUse> uses = {{even_model(24, gib(0.4), 0.01), 1},
                                {even_model(40, gib(0.4), 0.02), 30},
                                {even_model(40, gib(0.4), 0.02), 30}};
  for (ModelUse& use : uses) use.model.activation_bytes = gib(1);
  auto plan = auto_plan(system, uses);
  if (plan.kept) CHECK(peak_of_all(plan) <= gib(20));
  CHECK(plan.placements[1].bytes[0] > plan.placements[0].bytes[0]);
  double alone = 0;  // each with everything streamed
  for (const ModelUse& use : uses)
    alone += use.steps * std::max(0.0, static_cast<double>(use.model.bytes()) / 10e9);
  CHECK(plan.total_s < alone);
}

TEST_CASE("auto: models side by side keep their rings, also those that do not run") {
  Random random(11);
  int found = 0, streaming = 0;
  for (int round = 0; round < 40; ++round) {
    CAPTURE(round);
    System system;
    system.devices = {{"cuda:0", gib(24), gib(random.real(2, 20))}, {"cpu", gib(256), gib(256)}};
    system.links = {{"cpu", "cuda:0", 10e9}};
    std::vector<ModelUse> uses;
    for (int i = random.whole(2, 3); i > 0; --i) {
      auto model = even_model(random.whole(4, 30), gib(random.real(0.1, 0.6)), 0.02);
      model.activation_bytes = gib(random.real(0.1, 1));
      uses.push_back({model, 20});
    }
    auto plan = plan_side_by_side(system, uses);
    if (!plan) continue;
    ++found;
    CHECK(peak_of_all(*plan) <= system.devices[0].budget_bytes);
    int rings = 0;
    for (auto& placement : plan->placements) rings += placement.ring_bytes() > 0 ? 1 : 0;
    streaming += rings > 1 ? 1 : 0;
  }
  CHECK(found > 20);
  CHECK(streaming > 10);
}

TEST_CASE("auto: models that do not even fit with one slot each are no plan side by side") {
  System system;
  system.devices = {{"cuda:0", gib(24), gib(2.5)}, {"cpu", gib(256), gib(256)}};
  system.links = {{"cpu", "cuda:0", 10e9}};
  std::vector<ModelUse> uses = {{even_model(4, gib(1), 0.1), 10}, {even_model(4, gib(1), 0.1), 10}};
  REQUIRE(plan_side_by_side(system, uses));
  system.devices[0].budget_bytes = gib(1.9);
  CHECK_FALSE(plan_side_by_side(system, uses));
}

TEST_CASE("auto: the same input gives the same answer") {
  auto system = two_cards(4e9, 7e9);
  system.devices[0].budget_bytes = gib(9);
  auto model = even_model(30, gib(1), 0.05);
  for (Block& block : model.blocks) block.seconds = {0.05, 0.2};
  CHECK(auto_plan(system, model) == auto_plan(system, model));
}
