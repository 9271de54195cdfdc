#include "distorch/placement/alternatives.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "distorch/placement/auto_plan.h"
#include "distorch/placement/timeline.h"

using namespace distorch;
using namespace distorch::placement;

namespace {

constexpr std::int64_t kGB = 1'000'000'000;

/// Two cards of 14 GB, RAM behind 25 GB/s, the cards so fast with each other.
System two_cards(double between_bytes_per_s) {
  System system;
  system.devices = {{"cuda:0", 14 * kGB, 14 * kGB},
                    {"cuda:1", 14 * kGB, 14 * kGB},
                    {"cpu", 128 * kGB, 128 * kGB}};
  for (const char* card : {"cuda:0", "cuda:1"}) {
    LinkSpec link;
    link.from = "cpu";
    link.to = card;
    link.bytes_per_s = 25e9;
    system.links.push_back(link);
  }
  LinkSpec between;
  between.from = "cuda:1";
  between.to = "cuda:0";
  between.bytes_per_s = between_bytes_per_s;
  system.links.push_back(between);
  return system;
}

/// 24 GB in 57 blocks that take `block_s` each on either card.
Model flux(double block_s) {
  Model model{.name = "flux"};
  model.activation_bytes = kGB;
  for (int i = 0; i < 57; ++i)
    model.blocks.push_back({.name = std::to_string(i),
                            .type = "Block",
                            .bytes = 24 * kGB / 57,
                            .seconds = {block_s, block_s, -1},
                            .activation_bytes = 28'000'000});
  return model;
}

int count(const Placement& placement, How how, int device) {
  return static_cast<int>(
      std::count_if(placement.blocks.begin(), placement.blocks.end(),
                    [&](const Home& home) { return home.how == how && home.device == device; }));
}

}  // namespace

TEST_CASE("a model over two cards: blocks run where they rest where streaming would hold them up") {
  // 11 GB over 25 GB/s take 0.44 s; the step computes for 0.06 s.
  const auto system = two_cards(25e9);
  const auto model = flux(0.001);
  const auto placement = auto_plan(system, model);
  CHECK(count(placement, How::OnDonor, 1) > 20);
  Timeline clock(system, model);
  const auto step_s = clock.step_s(placement);
  CHECK(step_s < 0.07);
  const auto others = alternatives(system, model);
  REQUIRE(others.size() == 3);
  for (const auto& other : others) {
    CAPTURE(other.name);
    CHECK(step_s <= other.step_s * (1 + 1e-9));
    REQUIRE(other.placement);
    CHECK(clock.step_s(*other.placement) == doctest::Approx(other.step_s));
  }
  CHECK(count(*others[0].placement, How::OnDonor, 1) == 0);
  CHECK(count(*others[0].placement, How::Streamed, 1) == 0);
  CHECK(count(*others[1].placement, How::OnDonor, 1) == 0);
  CHECK(count(*others[1].placement, How::Streamed, 1) > 0);
  CHECK(count(*others[2].placement, How::OnDonor, 1) > 0);
  CHECK(others[0].step_s > 0.4);
  CHECK(others[1].step_s > 2 * step_s);
  const auto text = reason(system, model, placement);
  CHECK(text.find("run on cuda:1") != std::string::npos);
  CHECK(text.find("without 0.4") != std::string::npos);
}

TEST_CASE("a model over two cards: weights stream over a fast link, nothing is waited for") {
  const auto system = two_cards(300e9);
  auto model = flux(0.003);
  // The second card is no help in computing.
  for (auto& block : model.blocks) block.seconds[1] = 0.03;
  const auto placement = auto_plan(system, model);
  CHECK(count(placement, How::OnDonor, 1) == 0);
  CHECK(Timeline(system, model).step_s(placement) <= 57 * 0.003 * 1.001);
  const auto text = reason(system, model, placement);
  CHECK(count(placement, How::Streamed, 1) > 0);
  CHECK(text.find("from cuda:1") != std::string::npos);
}

TEST_CASE("nothing to say where one card holds all, or there is no other") {
  auto system = two_cards(25e9);
  system.devices[0].budget_bytes = 40 * kGB;
  const auto model = flux(0.001);
  CHECK(reason(system, model, auto_plan(system, model)).empty());
  system.devices.erase(system.devices.begin() + 1);
  system.links.pop_back();
  auto alone = model;
  for (auto& block : alone.blocks) block.seconds = {0.001, -1};
  CHECK(alternatives(system, alone).empty());
}
