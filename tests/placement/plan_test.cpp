#include "distorch/placement/plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "distorch/base/error.h"
#include "distorch/placement/timeline.h"
#include "machines.h"

using namespace distorch;
using namespace distorch::placement;

namespace {

std::vector<std::int64_t> quotas_of(const std::string& text, const Model& model) {
  return quotas(two_cards(), model, parse_full_allocation(text));
}

}  // namespace

TEST_CASE("quotas: bytes in the order written, the rest to the wildcard or cpu") {
  auto model = even_model(8, gib(1), 0.1);
  CHECK(quotas_of("cuda:0,2.5gb;cpu,*", model) == std::vector<std::int64_t>{gib(2.5), 0, gib(5.5)});
  CHECK(quotas_of("cuda:0,2gb;cuda:1,1gb", model) ==
        std::vector<std::int64_t>{gib(2), gib(1), gib(5)});
  CHECK(quotas_of("cuda:1,*;cpu,3gb", model) == std::vector<std::int64_t>{0, gib(5), gib(3)});
  CHECK(quotas_of("cuda:0,20gb;cpu,4gb", model) == std::vector<std::int64_t>{gib(8), 0, 0});
}

TEST_CASE("quotas: ratios are normalised, to the byte") {
  auto model = even_model(5, gib(1), 0.1);
  CHECK(quotas_of("cuda:0,8%;cuda:1,8%;cpu,4%", model) ==
        std::vector<std::int64_t>{gib(2), gib(2), gib(1)});
  model = even_model(7, 1'000'000'007, 0.1);
  auto thirds = quotas_of("cuda:0,1%;cuda:1,1%;cpu,1%", model);
  CHECK(thirds[0] + thirds[1] + thirds[2] == model.bytes());
  CHECK(std::abs(thirds[0] - thirds[2]) <= 2);
  CHECK(quotas_of("cuda:0,25%;cpu,*", even_model(4, gib(1), 1)) ==
        std::vector<std::int64_t>{gib(1), 0, gib(3)});
}

TEST_CASE("quotas: fractions of a device's memory; two GiB of 24 stay two GiB") {
  auto model = even_model(8, gib(1), 0.1);
  CHECK(quotas_of("cuda:0,0.25;cpu,0.03125", model) ==
        std::vector<std::int64_t>{gib(6), 0, gib(2)});
}

TEST_CASE("quotas: virtual VRAM takes donors in turn") {
  auto system = two_cards();
  system.devices[1].budget_bytes = gib(2);
  auto model = even_model(10, gib(1), 0.1);
  auto of = [&](const char* text) { return quotas(system, model, parse_full_allocation(text)); };
  CHECK(of("#cuda:0;4;cpu") == std::vector<std::int64_t>{gib(6), 0, gib(4)});
  CHECK(of("#cuda:0;4;cuda:1,cpu") == std::vector<std::int64_t>{gib(6), gib(2), gib(2)});
  CHECK(of("#cuda:0;128;cpu") == std::vector<std::int64_t>{0, 0, gib(10)});
  CHECK(of("#cuda:0;4;cuda:0") == std::vector<std::int64_t>{gib(10), 0, 0});
  CHECK(of("#") == std::vector<std::int64_t>{gib(10), 0, 0});
  CHECK_THROWS_WITH(of("#cuda:0;4;cuda:1"),
                    "cuda:1: 4.00 GiB of virtual VRAM are asked for, the donors have 2.00 GiB");
}

TEST_CASE("quotas: impossible requests name the device and both numbers") {
  auto model = even_model(100, gib(1), 0.1);
  CHECK_THROWS_WITH(quotas_of("cuda:0,2gb;cuda:7,1gb", model),
                    "device cuda:7: is not there; there are cuda:0, cuda:1, cpu");
  CHECK_THROWS_WITH(quotas_of("cuda:0,30gb;cpu,*", model),
                    "cuda:0: 30.00 GiB of 'even' would rest there, 24.00 GiB may be used");
  CHECK_THROWS_WITH(quotas_of("cuda:0,80%;cuda:1,40%;cpu,*", model),
                    "allocation: asks for 120% of the model and the rest of it besides");
  CHECK_THROWS_WITH(quotas_of("cuda:0,0%;cpu,0%", model), "allocation: all shares are 0%");
}

TEST_CASE("plan: two of four blocks, the example of the design") {
  auto placement =
      plan(two_cards(), even_model(4, gib(1), 0.1), parse_full_allocation("cuda:0,2gb;cpu,*"));
  CHECK(placement.bytes == std::vector<std::int64_t>{gib(2), 0, gib(2)});
  CHECK(placement.blocks[0] != placement.blocks[1]);  // alternating
  CHECK(placement.blocks[1] != placement.blocks[2]);
  CHECK(placement.rings == std::vector<RingSize>{{2, 2, gib(1)}});
}

TEST_CASE("plan: tail is the original's order") {
  auto placement = plan(two_cards(), even_model(6, gib(1), 0.1),
                        parse_full_allocation("cpu,3gb;cuda:1,2gb;cuda:0,1gb"), Order::Tail);
  std::vector<int> devices;
  for (const Home& home : placement.blocks) devices.push_back(home.device);
  CHECK(devices == std::vector<int>{2, 2, 2, 1, 1, 0});
}

TEST_CASE("plan: tiny and pinned blocks stay on the compute device and are charged to it") {
  auto model = even_model(10, gib(1), 0.1);
  model.blocks[0].pinned = true;
  model.blocks[5].bytes = 1000;
  auto placement = plan(two_cards(), model, parse_full_allocation("cuda:0,3gb;cpu,*"));
  CHECK(placement.blocks[0].device == 0);
  CHECK(placement.blocks[5].device == 0);
  CHECK(placement.bytes[0] == gib(3) + 1000);
  placement = plan(two_cards(), model, parse_full_allocation("cpu,*"));
  CHECK(placement.bytes[0] == gib(1) + 1000);
}

TEST_CASE(
    "plan: rings and activations count; one slot where two do not fit; else both numbers are "
    "named") {
  auto system = two_cards();
  auto model = even_model(20, gib(1), 0.1);
  model.activation_bytes = gib(1);
  system.devices[0].budget_bytes = gib(10);
  CHECK(plan(system, model, parse_full_allocation("cuda:0,7gb;cpu,*")).rings[0].slots == 2);
  CHECK(plan(system, model, parse_full_allocation("cuda:0,8gb;cpu,*")).peak_bytes() <= gib(10));
  CHECK_THROWS_WITH(
      plan(system, model, parse_full_allocation("cuda:0,10gb;cpu,*")),
      doctest::Contains(
          "cuda:0: 12.00 GiB are needed (10.00 GiB of weights, 1.00 GiB of ring slots, 1.00 GiB of "
          "activations), 10.00 GiB may be used"));
}

TEST_CASE("plan: exact within one block, on random machines, models and requests") {
  Random random(17);
  int planned = 0;
  for (int round = 0; round < 300; ++round) {
    CAPTURE(round);
    System system = random_system(random);
    for (Device& device : system.devices) device.budget_bytes = device.total_bytes = gib(512);
    Model model = random_model(random, system);
    model.blocks[0].pinned = false;
    Allocation allocation;
    const int mode = random.whole(0, 3);
    for (const Device& device : system.devices) {
      if (mode == 0)
        allocation.shares.push_back({device.name, Unit::ModelPercent, random.real(0.1, 50)});
      if (mode == 1)
        allocation.shares.push_back({device.name, Unit::Bytes,
                                     random.real(0, static_cast<double>(model.bytes())),
                                     device.name == "cpu"});
      if (mode == 2)
        allocation.shares.push_back({device.name, Unit::DeviceFraction, random.real(0, 0.02)});
    }
    if (mode == 3) allocation.virtual_bytes = random.real(0, static_cast<double>(model.bytes()));
    auto asked = quotas(system, model, allocation);
    auto placement = plan(system, model, allocation);
    std::int64_t sum = 0, largest = 0, asked_sum = 0;
    for (const Block& block : model.blocks) largest = std::max(largest, block.bytes);
    for (std::size_t d = 0; d < asked.size(); ++d) {
      CHECK(std::abs(placement.bytes[d] - asked[d]) <= largest);
      sum += placement.bytes[d];
      asked_sum += asked[d];
    }
    CHECK(sum == model.bytes());
    CHECK(asked_sum == model.bytes());
    ++planned;
  }
  CHECK(planned == 300);
}

TEST_CASE("plan: a spread is never slower than the tail") {
  for (int offloaded : {1, 3, 10, 17, 20}) {
    auto system = two_cards(8e9);
    auto model = even_model(20, gib(1), 0.1);
    auto allocation = parse_full_allocation("#cuda:0;" + std::to_string(offloaded) + ";cpu");
    Timeline clock(system, model);
    CHECK(clock.step_s(plan(system, model, allocation)) <=
          clock.step_s(plan(system, model, allocation, Order::Tail)) * (1 + 1e-9));
  }
}

TEST_CASE(
    "plan: FLUX-like blocks (19 heavy, 38 light, equal work) reach the bound within 0.5 % whatever "
    "is offloaded") {
  System system;
  system.devices = {{"cuda:0", gib(139), gib(139)}, {"cpu", gib(128), gib(128)}};
  system.links = {{"cpu", "cuda:0", 55.5e9, 8e-6}};
  for (double seconds : {0.058, 0.17, 0.3, 0.429, 0.5, 0.75, 1.2}) {
    for (double part : {0.25, 0.5, 0.75, 1.0}) {
      CAPTURE(seconds);
      CAPTURE(part);
      Model model{.name = "flux"};
      for (int i = 0; i < 57; ++i) {
        model.blocks.push_back({.name = std::to_string(i),
                                .bytes = i < 19 ? 680'000'000 : 284'000'000,
                                .seconds = {seconds / 57}});
      }
      Allocation allocation;
      allocation.virtual_bytes = part * static_cast<double>(model.bytes());
      auto placement = plan(system, model, allocation);
      const double link = static_cast<double>(model.bytes() - placement.bytes[0]) / 55.5e9;
      CHECK(Timeline(system, model).step_s(placement) <= 1.005 * std::max(seconds, link));
    }
  }
}
