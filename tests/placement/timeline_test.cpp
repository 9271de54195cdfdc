#include "distorch/placement/timeline.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "distorch/placement/baselines.h"
#include "machines.h"

using namespace distorch;
using namespace distorch::placement;

namespace {

System one_donor(double bytes_per_s, double latency_s = 0) {
  System system;
  system.devices = {{"cuda:0", gib(24), gib(24)}, {"cpu", gib(64), gib(64)}};
  system.links = {{"cpu", "cuda:0", bytes_per_s, latency_s}};
  return system;
}

const Home kResident{0, How::Resident};
const Home kStreamed{1, How::Streamed};

double step_of(const System& system, const Model& model, std::vector<Home> homes,
               double slots = 2) {
  Timeline clock(system, model);
  auto placement = make_placement(system, model, std::move(homes), slots);
  double step = clock.step_s(placement);
  // recurrence = events
  CHECK(clock.report(placement).step_s == doctest::Approx(step).epsilon(1e-7));
  return step;
}

}  // namespace

TEST_CASE("timeline: resident blocks cost their compute") {
  CHECK(step_of(one_donor(1e9), even_model(4, 1000, 0.5), std::vector<Home>(4, kResident)) ==
        doctest::Approx(2.0));
}

TEST_CASE("timeline: all streamed, the slower of compute and link") {
  auto model = even_model(4, 1'000'000'000, 0.5);
  CHECK(step_of(one_donor(1e9), model, std::vector<Home>(4, kStreamed)) == doctest::Approx(4.0));
  CHECK(step_of(one_donor(4e9), model, std::vector<Home>(4, kStreamed)) == doctest::Approx(2.0));
}

TEST_CASE("timeline: one slot cannot overlap") {
  CHECK(step_of(one_donor(2e9), even_model(4, 1'000'000'000, 0.5), std::vector<Home>(4, kStreamed),
                1) == doctest::Approx(4.0));
}

TEST_CASE(
    "timeline: in one slot and a half a block's first half comes while the one before computes") {
  auto model = even_model(4, 1'000'000'000, 0.2);
  const std::vector<Home> homes(4, kStreamed);
  CHECK(step_of(one_donor(1e9), model, homes, 1.5) == doctest::Approx(4.0));
  for (auto& block : model.blocks) block.seconds[0] = 0.7;  // 0.2 s more than half a copy
  CHECK(step_of(one_donor(1e9), model, homes, 1.5) == doctest::Approx(4.8));
  // A host that is late begins to copy when the block has been computed.
  model.late_host = true;
  CHECK(step_of(one_donor(1e9), model, homes, 1.5) == doctest::Approx(6.8));
}

TEST_CASE("timeline: a block comes piece by piece, as its place is released") {
  // Of the third, 0.9 s come while the second, which needs a tenth of the slot, computes; the last
  // 0.1 s after it. The second's own 0.1 s and the first's 1 s follow the one before.
  auto model = even_model(3, 1'000'000'000, 1);
  model.blocks[1].bytes = 100'000'000;
  const std::vector<Home> homes(3, kStreamed);
  CHECK(step_of(one_donor(1e9), model, homes, 1) == doctest::Approx(3 + 0.1 + 0.1 + 1));
  // A host that computes waits for all of the place.
  System host;
  host.devices = {{"cpu", gib(64), gib(64)}, {"disk", gib(64), gib(64)}};
  host.links = {{"disk", "cpu", 1e9, 0}};
  CHECK(step_of(host, model, homes, 1) == doctest::Approx(3 + 0.1 + 1 + 1));
}

TEST_CASE("timeline: worked example by hand") {
  // Blocks 0 and 1 stream (1 s each), 2 and 3 are resident, 1 s of compute each. Cyclic over steps
  // both copies hide.
  auto model = even_model(4, 1'000'000'000, 1);
  std::vector<Home> homes = {kStreamed, kStreamed, kResident, kResident};
  auto system = one_donor(1e9);
  Timeline clock(system, model);
  auto report = clock.report(make_placement(system, model, homes), 2);
  CHECK(report.first_s == doctest::Approx(5));  // the first copy is waited for
  CHECK(report.step_s == doctest::Approx(4));
  CHECK(report.bound_s == doctest::Approx(4));
  CHECK(report.compute_s == doctest::Approx(4));
  CHECK(report.wait_s == doctest::Approx(0));
  CHECK(report.streamed_bytes == 2'000'000'000);
  // The first copy of the second step begins when the slot of block 0 is free: at 2 s, during
  // block 1.
  bool found = false;
  for (const Interval& bar : report.intervals) {
    if (bar.kind == Interval::Kind::Copy && bar.block == 0 && bar.step == 1) {
      CHECK(bar.start_s == doctest::Approx(2));
      CHECK(bar.end_s == doctest::Approx(3));
      found = true;
    }
  }
  CHECK(found);
}

TEST_CASE("timeline: latency counts once a copy") {
  CHECK(step_of(one_donor(1e9, 0.25), even_model(4, 1'000'000'000, 0.1),
                std::vector<Home>(4, kStreamed)) == doctest::Approx(5.0));
}

TEST_CASE("timeline: packed at the tail waits, spread does not") {
  auto model = even_model(8, 1'000'000'000, 1);
  auto system = one_donor(0.5e9);  // a copy takes 2 s
  std::vector<Home> tail(8, kResident), spread(8, kResident);
  for (int i = 4; i < 8; ++i) tail[i] = kStreamed;
  for (int i = 0; i < 8; i += 2) spread[i] = kStreamed;
  CHECK(step_of(system, model, spread) == doctest::Approx(8));
  CHECK(step_of(system, model, tail) > 9);
}

TEST_CASE("timeline: two donors carry at once; a shared root halves that") {
  auto model = even_model(4, 1'000'000'000, 0.1);
  auto system = two_cards(1e9, 1e9);
  std::vector<Home> homes = {
      {1, How::Streamed}, {2, How::Streamed}, {1, How::Streamed}, {2, How::Streamed}};
  CHECK(step_of(system, model, homes) == doctest::Approx(2.0).epsilon(0.06));
  system.roots = {{"pcie", 1e9}};
  for (auto& link : system.links) link.root = "pcie";
  for (auto& link : system.links) {  // same direction towards the first card
    if (link.from == "cuda:1") CHECK(link.to == "cuda:0");
  }
  CHECK(step_of(system, model, homes) == doctest::Approx(4.0).epsilon(0.06));
}

TEST_CASE(
    "timeline: a block that runs on its donor costs its time there and the way there and back") {
  auto model = even_model(3, 1'000'000'000, 1);
  model.blocks[1].seconds = {1, 2};
  model.blocks[1].activation_bytes = 500'000'000;
  model.blocks[2].activation_bytes = 250'000'000;
  std::vector<Home> homes = {kResident, {1, How::OnDonor}, kResident};
  auto system = one_donor(1e9);
  CHECK(step_of(system, model, homes) == doctest::Approx(1 + 0.5 + 2 + 0.25 + 1));
  // At the end of the chain the result travels back by the last block's own size.
  std::swap(homes[1], homes[2]);
  model.blocks[2].seconds = {1, 3};
  CHECK(step_of(system, model, homes) == doctest::Approx(1 + 1 + 0.25 + 3 + 0.25));
}

TEST_CASE(
    "timeline: what blocks in a row on a donor gave goes back beside the next, or after them") {
  auto model = even_model(4, 1'000'000'000, 1);
  for (auto& block : model.blocks) block.seconds = {1, 1};
  const std::vector<Home> homes = {
      kResident, {1, How::OnDonor}, {1, How::OnDonor}, {1, How::OnDonor}};
  auto system = one_donor(1e9);
  // Half a second each: the first two are back before the last block is done.
  for (auto& block : model.blocks) block.activation_bytes = 500'000'000;
  CHECK(step_of(system, model, homes) == doctest::Approx(1 + 0.5 + 3 + 0.5));
  // Two seconds each: they take from 1 to 5, the last block is done at 3.
  for (auto& block : model.blocks) block.activation_bytes = 2'000'000'000;
  CHECK(step_of(system, model, homes) == doctest::Approx(1 + 2 + 3 + 2 + 2));
}

TEST_CASE("timeline: what cannot run or stream takes forever") {
  auto model = even_model(2, 1000, 1);
  auto system = one_donor(1e9);
  Timeline clock(system, model);
  CHECK(clock.step_s(make_placement(system, model, {kResident, {1, How::OnDonor}})) ==
        LinkClock::kNever);
  System apart = system;
  apart.links.clear();
  CHECK(Timeline(apart, model).step_s(make_placement(apart, model, {kResident, kStreamed})) ==
        LinkClock::kNever);
}

TEST_CASE(
    "timeline: random placements: recurrence = events, never below the bound, no lane does two "
    "things at once") {
  Random random(11);
  for (int round = 0; round < 300; ++round) {
    CAPTURE(round);
    System system = random_system(random);
    Model model = random_model(random, system);
    std::vector<Home> homes;
    for (std::size_t i = 0; i < model.blocks.size(); ++i) {
      int device = random.whole(0, static_cast<int>(system.devices.size()) - 1);
      bool run = device != 0 && model.blocks[i].seconds[device] >= 0 && random.chance(0.3);
      homes.push_back({device, device == 0 ? How::Resident : run ? How::OnDonor : How::Streamed});
    }
    auto placement = make_placement(system, model, homes, random.whole(1, 3));
    Timeline clock(system, model);
    const double step = clock.step_s(placement);
    auto report = clock.report(placement, 2);
    CHECK(report.step_s == doctest::Approx(step).epsilon(1e-6));
    CHECK(step >= report.bound_s * (1 - 1e-6));
    std::sort(report.intervals.begin(), report.intervals.end(),
              [](auto& a, auto& b) { return a.start_s < b.start_s; });
    std::vector<double> busy_until(report.lanes.size(), 0);
    bool clean = true;
    for (const Interval& bar : report.intervals) {
      clean = clean && bar.start_s >= busy_until[bar.lane] - 1e-9;
      busy_until[bar.lane] = bar.end_s;
    }
    CHECK(clean);
  }
}

TEST_CASE("timeline: replicas that stream from one root halve each other, others do not") {
  for (bool shared : {false, true}) {
    CAPTURE(shared);
    System system;
    system.devices = {{"cuda:0", gib(24), gib(24)},
                      {"cuda:1", gib(24), gib(24)},
                      {"cuda:2", gib(24), gib(24)},
                      {"cpu", gib(64), gib(64)}};
    if (shared) system.roots = {{"pcie", 10e9}};
    for (const char* card : {"cuda:0", "cuda:1", "cuda:2"})
      system.links.push_back({"cpu", card, 10e9, 0, true, shared ? "pcie" : ""});
    auto model = even_model(10, gib(1), 0.01);  // copies take ten times as long as the work
    for (Block& block : model.blocks) block.seconds = {0.01, 0.01, 0.01};
    std::vector<Placement> placements;
    for (int card : {0, 1, 2}) {
      System own = system;
      own.compute = card;
      Home home = card == 2 ? Home{2, How::Resident} : Home{3, How::Streamed};
      placements.push_back(make_placement(own, model, std::vector<Home>(10, home)));
    }
    const double alone = steps_together(system, {{&model, &placements[0]}})[0];
    CHECK(alone == doctest::Approx(static_cast<double>(model.bytes()) / 10e9));
    auto steps = steps_together(
        system, {{&model, &placements[0]}, {&model, &placements[1]}, {&model, &placements[2]}});
    CHECK(steps[0] == doctest::Approx(shared ? 2 * alone : alone));
    CHECK(steps[1] == doctest::Approx(shared ? 2 * alone : alone));
    CHECK(steps[2] == doctest::Approx(0.1));
  }
}

TEST_CASE("timeline: a replica alone is what the clock of one model says") {
  Random random(5);
  int compared = 0;
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    System system = random_system(random);
    Model model = random_model(random, system);
    for (const Named& other : baselines(system, model)) {
      Timeline clock(system, model);
      const double step = clock.step_s(other.placement);
      if (step == LinkClock::kNever || model.blocks.empty()) continue;
      CHECK(steps_together(system, {{&model, &other.placement}})[0] ==
            doctest::Approx(step).epsilon(1e-6));
      ++compared;
    }
  }
  CHECK(compared > 50);
}
