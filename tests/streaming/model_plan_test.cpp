#include "distorch/streaming/model_plan.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::Model;
using placement::System;

namespace {

/// Device 0 computes, device 1 is RAM.
System machine(std::int64_t budget, std::int64_t ram = 1000) {
  System system;
  system.devices = {{"cuda:0", 1000, budget}, {"cpu", 1000, ram}};
  system.links = {{"cpu", "cuda:0", 1e3}};
  return system;
}

Model model(int blocks, std::int64_t bytes, std::int64_t activations = 0) {
  Model model{.name = "model"};
  for (int i = 0; i < blocks; ++i)
    model.blocks.push_back(
        {.name = "block." + std::to_string(i), .type = "block", .bytes = bytes, .seconds = {0.1}});
  model.activation_bytes = activations;
  return model;
}

Holder holder(std::int64_t bytes, std::uint64_t used, bool current = false, bool pinned = false) {
  return {.bytes = {bytes, 0}, .pinned = pinned, .current = current, .used = used};
}

using List = std::vector<int>;

}  // namespace

TEST_CASE(
    "who goes first: what no prompt uses, then what was used longest ago, never what is used") {
  std::vector<Holder> holders{holder(10, 5), holder(10, 2, true), holder(10, 4),
                              holder(10, 1, false, true)};
  CHECK(next_to_go(holders, 0) == 2);
  CHECK(next_to_go(holders, 1) == -1);
  CHECK(to_go(holders, 0, 0) == List{});
  CHECK(to_go(holders, 0, 5) == List{2});
  CHECK(to_go(holders, 0, 20) == List{2, 0});
  CHECK(to_go(holders, 0, 21) == List{2, 0, 1});
  CHECK(to_go(holders, 0, 1000) == List{2, 0, 1});
}

TEST_CASE("who could stay after all does not go") {
  CHECK(to_go({holder(5, 1), holder(30, 2), holder(7, 3)}, 0, 20) == List{1});
  CHECK(to_go({holder(5, 1), holder(30, 2), holder(7, 3)}, 0, 34) == List{0, 1});
}

TEST_CASE("what fits beside the others sends nobody away") {
  PlanRequest request;
  request.system = machine(100);
  request.wanted = {{model(5, 10, 10), 10}};
  request.holders = {holder(20, 1), holder(20, 2)};
  auto plan = plan_models(request);
  CHECK(plan.gone.empty());
  CHECK(plan.placements[0].bytes[0] == 50);
  CHECK(plan.system.devices[0].budget_bytes == 60);
}

TEST_CASE("others go for speed, unless the loader wants them to stay") {
  PlanRequest request;
  request.system = machine(100);
  request.wanted = {{model(7, 10, 10), 10}};
  request.holders = {holder(20, 1), holder(20, 2)};
  auto plan = plan_models(request);
  CHECK(plan.gone == List{0});
  CHECK(plan.placements[0].bytes[0] == 70);
  request.eject = false;
  plan = plan_models(request);
  CHECK(plan.gone.empty());
  CHECK(plan.placements[0].bytes[0] < 70);
  CHECK(plan.placements[0].peak_bytes() <= 60);
}

TEST_CASE("where nothing fits otherwise others go, as few as can be") {
  PlanRequest request;
  request.system = machine(100);
  request.wanted = {{model(4, 30, 10), 10}};
  request.eject = false;
  request.holders = {holder(3, 1), holder(90, 2), holder(4, 3)};
  auto plan = plan_models(request);
  CHECK(plan.gone == List{1});
  request.holders[1].pinned = true;
  CHECK_THROWS_AS(plan_models(request), Error);
}

TEST_CASE("a model that RAM has no room for sends away who holds it there") {
  PlanRequest request;
  request.system = machine(50, 100);
  request.wanted = {{model(10, 10), 10}};
  request.holders = {holder(0, 1)};
  request.holders[0].bytes = {0, 80};
  CHECK(plan_models(request).gone == List{0});
}

TEST_CASE("an allocation sends others away only where it does not fit") {
  PlanRequest request;
  request.system = machine(100);
  request.wanted = {{model(10, 10, 10), 10}};
  request.allocation = placement::parse_full_allocation("cuda:0,50%;cpu,50%");
  request.allocation->compute = "cuda:0";
  request.holders = {holder(10, 1)};
  CHECK(plan_models(request).gone.empty());
  request.holders = {holder(40, 1), holder(2, 2)};
  CHECK(plan_models(request).gone == List{0});
}

TEST_CASE("partners share what is left beside those that stay") {
  PlanRequest request;
  request.system = machine(200);
  request.wanted = {{model(8, 10, 10), 10}};
  request.partners = {{model(8, 10, 10), 10}};
  request.holders = {holder(20, 1), holder(80, 2)};
  request.holders[1].partner = 0;
  auto plan = plan_models(request);
  CHECK(plan.together);
  CHECK(plan.gone.empty());
  CHECK(plan.placements[0].bytes[0] + plan.placements[1].bytes[0] == 160);
  // A text encoder that is in the way of both goes.
  request.holders[0] = holder(40, 1);
  plan = plan_models(request);
  CHECK(plan.gone == List{0});
  CHECK(plan.placements[0].bytes[0] + plan.placements[1].bytes[0] == 160);
  // One that is in use does not: they share the rest, or one makes way for the other.
  request.holders[0].pinned = true;
  plan = plan_models(request);
  std::int64_t held = 40, activations = 10;
  for (std::size_t i = 0; i < plan.placements.size(); ++i)
    held += plan.placements[i].bytes[0] + plan.placements[i].ring_bytes();
  CHECK(held + activations <= 200);
  if (!plan.together) CHECK(plan.gone == List{1});
}

TEST_CASE("models that run at once are all in place, or refused as one") {
  PlanRequest request;
  request.system = machine(100);
  request.wanted = {{model(8, 10, 10), 10}, {model(4, 10, 5), 10}};
  request.holders = {holder(40, 1)};
  auto plan = plan_models(request);
  REQUIRE(plan.placements.size() == 2);
  CHECK(plan.gone == List{0});
  CHECK(plan.placements[0].bytes[0] + plan.placements[0].ring_bytes() +
            plan.placements[1].bytes[0] + plan.placements[1].ring_bytes() + 10 <=
        100);
  request.system = machine(29);
  CHECK_THROWS_WITH_AS(plan_models(request), doctest::Contains("used at once"), Error);
  request.system = machine(15);
  CHECK_THROWS_AS(plan_models(request), Error);
}

TEST_CASE("nobody goes for the work that another model of many steps may do later") {
  PlanRequest request;
  request.system = machine(100);
  request.wanted = {{model(4, 10, 10), 10}};
  request.partners = {{model(2, 10, 40), 10}};
  auto idle = holder(20, 1);
  auto partner = holder(20, 2);
  partner.partner = 0;
  request.holders = {idle, partner};
  auto plan = plan_models(request);
  CHECK(plan.gone.empty());
}

TEST_CASE("a plan is tight where activations take more than a third of a device") {
  struct Case {
    std::int64_t blocks, activations, budget;
    bool tight;
  };
  // Of the second the ring takes most; in the last nothing streams.
  for (const auto& [blocks, activations, budget, tight] :
       {Case{8, 20, 45, true}, {8, 10, 35, false}, {2, 400, 1000, false}}) {
    CAPTURE(budget);
    PlanRequest request;
    request.system = machine(budget);
    request.wanted = {{model(blocks, 10, activations), 10}};
    const auto plan = plan_models(request);
    CHECK(is_tight(plan.placements[0], plan.system) == tight);
  }
}

TEST_CASE("idle blocks are resident where all is, and aside where not") {
  PlanRequest request;
  auto idle = model(10, 10, 3);  // activations of 3
  for (int i = 0; i < 4; ++i) idle.blocks[i].idle = true;
  request.wanted = {{idle, 10}};
  request.system = machine(103);
  auto plan = plan_models(request);
  CHECK_FALSE(plan.idle_aside);
  CHECK(plan.placements[0].bytes[0] == 100);
  // 60 of the others, and room for one of these.
  for (std::int64_t budget : {102, 71}) {
    request.system = machine(budget);
    plan = plan_models(request);
    CHECK(plan.idle_aside);
    CHECK(plan.placements[0].all_resident());
    CHECK(plan.placements[0].bytes[0] == 60);
    CHECK(plan.placements[0].activation_bytes == 11);  // one of them, and what it computes
    CHECK(plan.placements[0].blocks[0] == placement::Home{1, placement::How::Aside});
  }
  request.system = machine(70);
  plan = plan_models(request);
  CHECK_FALSE(plan.placements[0].all_resident());
  CHECK(plan.placements[0].peak_bytes() <= 70);
  // A model that is in use beside it leaves no room for all.
  request.system = machine(120);
  request.holders = {holder(30, 1, false, true)};
  plan = plan_models(request);
  CHECK(plan.idle_aside);
  CHECK(plan.placements[0].all_resident());
  // Who says what is to lie where gets that: less than the idle blocks in RAM, all of them, more.
  request.holders.clear();
  request.allocation.emplace();
  request.allocation->compute = "cuda:0";
  request.allocation->donors = {"cpu"};
  for (std::int64_t in_ram : {30, 40, 60}) {
    CAPTURE(in_ram);
    request.allocation->virtual_bytes = static_cast<double>(in_ram);
    plan = plan_models(request);
    CHECK(plan.idle_aside == (in_ram >= 40));
    CHECK(plan.placements[0].bytes[0] == 100 - in_ram);
    CHECK(plan.placements[0].bytes[1] == (in_ram >= 40 ? in_ram - 40 : in_ram));
    CHECK(plan.placements[0].all_resident() == (in_ram == 40));
  }
}
