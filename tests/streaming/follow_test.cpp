// A neighbour takes and frees memory of the device while a model runs there.
#include <doctest/doctest.h>

#include <deque>

#include "distorch/device/retry.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/described_model.h"
#include "tests/streaming/known_models.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr std::int64_t kTotal = std::int64_t{2} << 20;
constexpr std::int64_t kMatrix = 128 * 128 * 4;

/// A model that does not fit on its device whole, run step by step.
struct Neighbourhood {
  Neighbourhood()
      : engine(toy::engine_options(toy::rig(1, kTotal))),
        known(engine, folder, "toy", {40, 128}),
        use(known.prepare()) {
    toy::Known plain(engine, folder, "plain", {40, 128}, {.compute = "cpu"});
    wanted = plain.prepare_and_run();
  }
  static at::TensorOptions bytes() {
    return at::TensorOptions().dtype(at::kByte).device(at::Device("sim:0"));
  }
  std::int64_t free() const {
    sim::finish();
    return kTotal - sim::memory(0).in_use;
  }
  std::int64_t held() const { return known.weights->device_bytes("sim:0"); }
  void take(std::int64_t amount) { taken.push_back(at::empty({amount}, bytes())); }
  /// `meanwhile` is called before the blocks run.
  void step(const std::function<void()>& meanwhile = {}) {
    auto x = at::ones({5, 128}).to(at::Device("sim:0"));
    auto result = known.weights->step({x}, [&](const std::vector<at::Tensor>& in) {
      if (meanwhile) meanwhile();
      return known.model.forward(in[0]);
    });
    CHECK(at::equal(result.cpu(), wanted));
    CHECK(sim::memory(0).peak <= kTotal);
  }

  toy::Folder folder;
  Engine engine;
  toy::Known known;
  Engine::Use use;
  at::Tensor wanted;
  std::deque<at::Tensor> taken;
};

}  // namespace

TEST_CASE("neighbour: who takes memory a little at a time is given way to before every step") {
  Neighbourhood place;
  place.step();
  const auto before = place.held();
  for (int i = 0; i < 70; ++i) {
    const auto amount = place.free() / 512 * 512;
    REQUIRE(amount > 0);
    place.take(amount / 2 / 512 * 512 + 512);
    place.step();
    // There is room again for the next.
    CHECK(place.free() >= kTotal * 3 / 1000);
  }
  CHECK(place.held() < before - 3 * kMatrix);
}

TEST_CASE("neighbour: what it leaves is used again after a few steps, to the last weight") {
  Neighbourhood place;
  for (int i = 0; i < 6; ++i) place.step();
  const auto before = place.held();
  CHECK(before > kTotal * 95 / 100);
  for (int i = 0; i < 60; ++i) {
    place.take(std::max<std::int64_t>(512, place.free() / 2 / 512 * 512));
    place.step();
  }
  const auto least = place.held();
  CHECK(least < before - 3 * kMatrix);
  place.taken.clear();
  place.step();
  CHECK(place.held() == least);  // it may come back at once
  for (int i = 0; i < 4; ++i) place.step();
  CHECK(place.held() > before - 2 * kMatrix);
  CHECK(place.free() > 0);
  // What the engine says is where the weights are.
  const auto* plan = place.engine.placement_of(*place.known.weights);
  for (std::size_t i = 0; i < plan->blocks.size(); ++i) {
    CHECK(plan->blocks[i].how == place.known.weights->homes()[i].how);
    CHECK(plan->blocks[i].rests == place.known.weights->homes()[i].rests);
  }
}

TEST_CASE("neighbour: room that is gone whenever it is used is tried less and less often") {
  Neighbourhood place;
  for (int i = 0; i < 6; ++i) place.step();
  for (int i = 0; i < 60; ++i) {
    place.take(std::max<std::int64_t>(512, place.free() / 2 / 512 * 512));
    place.step();
  }
  place.taken.clear();
  int grew = 0;
  for (int i = 0; i < 320; ++i) {
    const auto before = place.held();
    place.step();
    if (place.held() > before) {
      ++grew;
      place.take((place.free() - 4096) / 512 * 512);  // but for an input
    } else if (place.held() < before) {
      place.taken.clear();
    }
  }
  // After 3, 20, 40, 80 and 160 steps. Every 20 steps it would be 15 times.
  CHECK(grew >= 3);
  CHECK(grew <= 7);
}

TEST_CASE("neighbour: what came and went weight by weight is spread as a plan would have it") {
  // Computing takes about as long as the link: it matters where the weights that rest are.
  constexpr std::int64_t rows = 440, total = std::int64_t{2816} << 10;
  toy::Folder folder;
  Engine engine(toy::engine_options(toy::rig(1, total)));
  toy::Known known(engine, folder, "toy", {40, 128});
  toy::Known plain(engine, folder, "plain", {40, 128}, {.compute = "cpu"});
  const auto wanted = plain.prepare_and_run(rows);
  auto use = known.prepare(rows);
  std::deque<at::Tensor> taken;
  const auto step = [&] {
    auto x = at::ones({rows, 128}).to(at::Device("sim:0"));
    auto result = known.weights->step(
        {x}, [&](const std::vector<at::Tensor>& in) { return known.model.forward(in[0]); });
    CHECK(at::equal(result.cpu(), wanted));
  };
  for (int i = 0; i < 6; ++i) step();
  const auto before = known.weights->device_bytes("sim:0");
  for (int i = 0; i < 40; ++i) {
    taken.push_back(at::empty({std::int64_t{16} << 10}, Neighbourhood::bytes()));
    step();
  }
  CHECK(known.weights->device_bytes("sim:0") < before - 2 * kMatrix);
  for (int i = 0; i < 6; ++i) step();
  auto system = engine.system("sim:0");
  const auto profile = known.needs(rows).profile(engine.speeds("sim:0"));
  const auto described = describe(*known.weights, system, host_bound(profile), engine.machine());
  const auto& now = *engine.placement_of(*known.weights);
  system.devices[system.compute].budget_bytes =
      now.bytes[system.compute] + now.ring_bytes() + described.activation_bytes;
  placement::Timeline clock(system, described);
  CAPTURE(clock.step_s(now));
  CHECK(clock.step_s(now) <= 1.011 * clock.step_s(placement::auto_plan(system, described)));
}

TEST_CASE("neighbour: spread anew, a model takes nothing of what a partner was promised") {
  constexpr std::int64_t rows = 440, total = std::int64_t{2816} << 10;
  toy::Folder folder;
  Engine engine(toy::engine_options(toy::rig(1, total)));
  toy::Known known(engine, folder, "toy", {40, 128});
  toy::Known partner(engine, folder, "partner", {8, 128});
  auto use = known.prepare(rows);
  const auto step = [&] {
    auto x = at::ones({rows, 128}).to(at::Device("sim:0"));
    known.weights->step(
        {x}, [&](const std::vector<at::Tensor>& in) { return known.model.forward(in[0]); });
  };
  for (int i = 0; i < 6; ++i) step();
  const auto before = known.weights->device_bytes("sim:0");
  {
    auto taken = at::empty({std::int64_t{600} << 10}, Neighbourhood::bytes());
    step();
  }
  REQUIRE(known.weights->device_bytes("sim:0") < before);
  for (int i = 0; i < 30; ++i) step();
  CHECK(known.weights->device_bytes("sim:0") <= before);
}

TEST_CASE("neighbour: an allocation that fails while weights come back waits for nobody") {
  Neighbourhood place;
  // As nodes run: who fails comes back for more, which takes the engine's lock.
  device::RetryScope nodes([&](c10::Device, std::int64_t bytes) {
    place.engine.make_room("sim:0", bytes, nullptr);
    return true;  // it fails once
  });
  int nth = 1, struck = 0;
  constexpr std::int64_t never = 1 << 20;
  place.known.weights->before_step = [&, follow = place.known.weights->before_step] {
    sim::fail_allocation(0, nth);
    follow();
    struck += sim::fault_pending(0) ? 0 : 1;
    sim::fail_allocation(0, never);
  };
  for (; nth < 9; ++nth) {
    CAPTURE(nth);
    for (int i = 0; i < 3; ++i) {
      place.take(std::max<std::int64_t>(512, place.free() / 2 / 512 * 512));
      place.step();
    }
    place.taken.clear();
    for (int i = 0; i < 25; ++i) place.step();
  }
  CHECK(struck > 3);
}

TEST_CASE("neighbour: one that takes everything in the middle of a step does not end it") {
  Neighbourhood place;
  place.step();
  int calls = 0;
  place.step([&] {
    // Not when the step is begun again.
    if (calls++ == 0) place.take(place.free() / 512 * 512);
  });
  CHECK(calls == 1);
  place.taken.clear();
  for (int i = 0; i < 30; ++i) place.step();
  CHECK(place.held() > kTotal / 2);
}

TEST_CASE(
    "neighbour: a model that is idle makes way first; what others were promised is not taken") {
  toy::Folder folder;
  Engine engine(toy::engine_options(toy::rig(1, kTotal)));
  toy::Known idle(engine, folder, "idle", {4, 128}, {.eject = false}, false);
  toy::Known known(engine, folder, "toy", {40, 128}, {.eject = false});
  idle.prepare_and_run();
  auto use = known.prepare();
  REQUIRE(idle.loaded());
  auto x = at::ones({5, 128}).to(at::Device("sim:0"));
  auto step = [&] {
    known.weights->step(
        {x}, [&](const std::vector<at::Tensor>& in) { return known.model.forward(in[0]); });
    sim::finish();
  };
  const auto held = known.weights->device_bytes("sim:0");
  step();
  REQUIRE(idle.loaded());
  sim::finish();
  auto taken = at::empty({kTotal - sim::memory(0).in_use},
                         at::TensorOptions().dtype(at::kByte).device(at::Device("sim:0")));
  step();
  CHECK_FALSE(idle.loaded());
  CHECK(known.weights->device_bytes("sim:0") == held);
  {
    toy::Known partner(engine, folder, "partner", {4, 128});
    for (int i = 0; i < 6; ++i) step();
    CHECK(known.weights->device_bytes("sim:0") == held);
  }
  for (int i = 0; i < 6; ++i) step();
  CHECK(known.weights->device_bytes("sim:0") > held + kMatrix);
}

TEST_CASE("neighbour: a budget that was asked for is not looked at") {
  toy::Folder folder;
  Engine engine(toy::engine_options(toy::rig(1, std::int64_t{8} << 20), {{"sim:0", kTotal}}));
  toy::Known known(engine, folder, "toy", {40, 128});
  auto use = known.prepare();
  auto x = at::ones({5, 128}).to(at::Device("sim:0"));
  auto step = [&] {
    return known.weights->step(
        {x}, [&](const std::vector<at::Tensor>& in) { return known.model.forward(in[0]); });
  };
  step();
  const auto held = known.weights->device_bytes("sim:0");
  for (int i = 0; i < 8; ++i) step();
  CHECK(known.weights->device_bytes("sim:0") == held);
}
