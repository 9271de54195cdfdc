#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include "distorch/device/sim/sim.h"
#include "distorch/placement/plan.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/described_model.h"
#include "distorch/streaming/profile.h"
#include "tests/streaming/toy_model.h"

// What the planner foresees for a placement (a dry run's profile, played on placement::Timeline)
// against what the engine then takes on the simulated machine's clock, computing real numbers.

using namespace distorch;
using namespace distorch::streaming;
using placement::Home;
using placement::How;

namespace {

constexpr int blocks = 12;
constexpr std::int64_t width = 192, rows = 48;
constexpr double allowed = 0.01;

/// sim:0 computes; "cpu" and sim:1 are donors with links of so many bytes/s.
Rig machine(double flops, double cpu_link, double card_link) {
  auto rig = toy::rig(2, std::int64_t{1} << 24);
  for (auto& device : rig.devices)
    if (device.name != "cpu") device.tflops = {{"default", flops / 1e12}};
  for (auto& link : rig.links) link.bytes_per_s = cpu_link;
  LinkSpec link;
  link.from = "sim:1";
  link.to = "sim:0";
  link.bytes_per_s = card_link;
  link.latency_s = 3e-6;
  rig.links.push_back(link);
  return rig;
}

at::Tensor input() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(5);
  return at::randn({rows, width}, generator);
}

struct Outcome {
  double seconds = 0;
  at::Tensor result;
};

/// So many steps on a fresh machine; the time includes filling the ring and what it fetched in vain
/// at the end.
Outcome run_steps(const Rig& rig, toy::Folder& folder, const std::vector<BlockHome>& homes,
                  double slots, int steps) {
  sim::install(rig, sim::Mode::Exec);
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0", .slots = slots});
  streamed.load(homes);
  auto x = input().to(at::Device("sim:0"));
  sim::finish();
  sim::reset_clock();
  at::Tensor y;
  for (int step = 0; step < steps; ++step) y = model.forward(x);
  double seconds = sim::finish();
  return {seconds, y.cpu()};
}

double predicted_step(const Rig& rig, toy::Folder& folder, const std::vector<BlockHome>& homes,
                      double slots) {
  toy::Model model(blocks, width);
  StreamedModel streamed(model.manifest(), folder.write(model),
                         {.name = "toy", .compute = "sim:0"});
  toy::Model fresh(blocks, width);
  auto profile =
      profile_model(streamed, fresh.manifest(), *rig.find("sim:0"), [&](at::Device device) {
        fresh.forward(at::empty({rows, width}, at::TensorOptions().device(device)));
      });
  auto system = placement::system_of(rig, "sim:0");
  placement::Model planned{.name = "toy"};
  std::vector<Home> planned_homes;
  for (int i = 0; i < blocks; ++i) {
    // Both accelerators are alike; a CPU does not run blocks for them.
    std::vector<double> seconds(system.devices.size(), -1);
    seconds[system.at("sim:0")] = seconds[system.at("sim:1")] = profile.seconds[i];
    planned.blocks.push_back({.name = std::to_string(i),
                              .type = "Block",
                              .bytes = streamed.file_bytes(i),
                              .seconds = seconds,
                              .activation_bytes = profile.activation_bytes[i]});
    if (homes[i].rests) describe_bytes(streamed, i, planned.blocks.back());
    planned_homes.push_back({system.at(homes[i].device), homes[i].how, homes[i].rests});
  }
  auto placed = placement::make_placement(system, planned, planned_homes, slots);
  return placement::Timeline(system, planned).step_s(placed);
}

/// What one more step takes in the long run.
double measured_step(const Rig& rig, toy::Folder& folder, const std::vector<BlockHome>& homes,
                     double slots) {
  constexpr int few = 4, many = 12;
  return (run_steps(rig, folder, homes, slots, many).seconds -
          run_steps(rig, folder, homes, slots, few).seconds) /
         (many - few);
}

std::vector<BlockHome> all(const BlockHome& home) { return std::vector<BlockHome>(blocks, home); }

const BlockHome resident{How::Resident, "sim:0"}, from_ram{How::Streamed, "cpu"},
    from_card{How::Streamed, "sim:1"}, on_card{How::OnDonor, "sim:1"},
    bias_rests{How::Streamed, "cpu", 2}, matrix_rests{How::Streamed, "cpu", 1};

/// Block i is pattern[i % size].
std::vector<BlockHome> mixed(const std::vector<BlockHome>& pattern) {
  std::vector<BlockHome> homes;
  for (int i = 0; i < blocks; ++i) homes.push_back(pattern[i % pattern.size()]);
  return homes;
}

struct Case {
  const char* name;
  std::vector<BlockHome> homes;
  double slots;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> list{
      {"resident", all(resident), 2},
      {"all from RAM", all(from_ram), 2},
      {"all from RAM, one slot", all(from_ram), 1},
      {"all from RAM, four slots", all(from_ram), 4},
      {"all from RAM, one slot and a half", all(from_ram), 1.5},
      {"in part from RAM, one slot and a quarter", mixed({bias_rests, from_ram, from_ram}), 1.25},
      {"all from the second card", all(from_card), 2},
      {"every second from RAM", mixed({resident, from_ram}), 2},
      {"two donors", mixed({from_ram, from_card}), 2},
      {"two donors, unequal", mixed({from_ram, from_card, from_card, resident}), 2},
      {"some run on the second card", mixed({resident, on_card, from_ram}), 2},
      {"rows run on the second card", mixed({resident, on_card, on_card, on_card}), 2},
      {"rows there, others from RAM", mixed({on_card, on_card, from_ram, resident}), 2},
      {"in part from RAM", mixed({bias_rests, matrix_rests, resident, bias_rests}), 2},
      {"in part from RAM, one slot", mixed({matrix_rests, bias_rests}), 1},
      {"a little between, one slot", mixed({from_ram, matrix_rests, from_ram, resident}), 1},
      {"the tail from RAM",
       [] {
         auto homes = all(resident);
         for (int i = 7; i < blocks; ++i) homes[i] = from_ram;
         return homes;
       }(),
       2},
  };
  return list;
}

}  // namespace

TEST_CASE(
    "prediction: a steady step on the simulator's clock takes what the timeline says, within 1 %") {
  toy::Folder folder;
  struct Machine {
    const char* name;
    Rig rig;
  };
  // A block is 148 kB and 3.6 Mflop (and four small operations).
  const std::vector<Machine> machines{{"the links are the limit", machine(1e12, 1e9, 2e9)},
                                      {"computing is the limit", machine(20e9, 5e9, 8e9)},
                                      {"both are alike", machine(100e9, 3.3e9, 3.5e9)}};
  for (const auto& on : machines)
    for (const auto& one : cases()) {
      CAPTURE(std::string(on.name));
      CAPTURE(std::string(one.name));
      double predicted = predicted_step(on.rig, folder, one.homes, one.slots);
      double measured = measured_step(on.rig, folder, one.homes, one.slots);
      CAPTURE(predicted * 1e6);
      CAPTURE(measured * 1e6);
      CHECK(std::abs(predicted / measured - 1) <= allowed);
    }
}

TEST_CASE("prediction: the cases have different limits, and every placement gives the same bits") {
  toy::Folder folder;
  auto links = machine(1e12, 1e9, 2e9), compute = machine(20e9, 5e9, 8e9);
  // One link is three times slower than computing; the second donor takes load off it.
  CHECK(predicted_step(links, folder, all(from_ram), 2) >
        3 * predicted_step(links, folder, all(resident), 2));
  CHECK(predicted_step(links, folder, mixed({from_ram, from_card}), 2) <
        0.7 * predicted_step(links, folder, all(from_ram), 2));
  CHECK(predicted_step(compute, folder, all(from_ram), 2) <
        1.03 * predicted_step(compute, folder, all(resident), 2));
  auto expected = run_steps(links, folder, all(resident), 2, 1).result;
  for (const auto& one : cases()) {
    CAPTURE(std::string(one.name));
    CHECK(at::equal(run_steps(links, folder, one.homes, one.slots, 2).result, expected));
  }
}
