#include "distorch/streaming/engine.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/thread_state.h"
#include "tests/streaming/known_models.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;
using toy::engine_options;
using toy::Known;

namespace {

constexpr int blocks = 10;
constexpr std::int64_t width = 128;
constexpr std::int64_t block_bytes = (width * width + width) * 4;

/// A prompt that runs until this object ends.
struct Prompt {
  RunScope scope{std::make_shared<RunToken>()};
};

ErrorKind kind_of_failure(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.kind();
  }
  return ErrorKind::Internal;
}

}  // namespace

TEST_CASE("engine: what fits is resident, the numbers are those of the plain model") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  Known model(engine, folder, "a");
  auto use = model.prepare();
  CHECK(model.count(How::Resident) == blocks);
  CHECK(model.run().isfinite().all().item<bool>());
}

TEST_CASE("engine: a budget is a promise about the peak") {
  toy::Folder folder;
  std::int64_t budget = 6 * block_bytes;
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", budget}}));
  Known model(engine, folder, "a");
  auto use = model.prepare();
  auto plain = model.run();
  CHECK(model.count(How::Resident) < blocks);
  CHECK(model.count(How::Resident) > 0);
  sim::reset_peak(0);
  CHECK(at::equal(model.run(), plain));
  CHECK(sim::memory(0).peak <= budget);
}

TEST_CASE("engine: budgets that make no sense are refused with both numbers") {
  auto rig = toy::rig(1, 1 << 20);
  CHECK_THROWS_WITH_AS(Engine(engine_options(rig, {{"sim:0", std::int64_t{1} << 30}})),
                       doctest::Contains("1.00 GiB"), Error);
  CHECK_THROWS_AS(Engine(engine_options(rig, {{"sim:7", 1 << 20}})), Error);
}

TEST_CASE("engine: models of earlier prompts give way, and only as far as needed") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 25 * block_bytes)));
  Known first(engine, folder, "first", {}, false), second(engine, folder, "second", {}, false),
      third(engine, folder, "third", {}, false);
  {
    Prompt prompt;
    first.prepare_and_run();
    second.prepare_and_run();
    CHECK(first.loaded());
  }
  Prompt prompt;
  third.prepare_and_run();
  CHECK(third.count(How::Resident) == blocks);
  CHECK_FALSE(first.loaded());
  CHECK(second.loaded());
}

TEST_CASE("engine: what the same prompt has used goes after what no prompt uses") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 25 * block_bytes)));
  Known text(engine, folder, "text", {}, false), old(engine, folder, "old", {}, false),
      unet(engine, folder, "unet", {}, false);
  Prompt prompt;
  text.prepare_and_run();
  {
    Prompt other;  // ends before this one goes on
    old.prepare_and_run();
  }
  unet.prepare_and_run();
  CHECK(text.loaded());
  CHECK_FALSE(old.loaded());
}

TEST_CASE("engine: both experts of a video model stay where they fit") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 25 * block_bytes)));
  Known high(engine, folder, "high"), low(engine, folder, "low");
  Prompt prompt;
  auto plain = high.prepare_and_run();
  low.prepare_and_run();
  CHECK(high.loaded());
  CHECK(low.loaded());
  CHECK(at::equal(high.prepare_and_run(), plain));
  CHECK(low.loaded());
}

TEST_CASE("engine: two models of many steps share what a text encoder leaves, or it makes way") {
  toy::Folder folder;
  for (std::int64_t budget : {8, 14, 24, 29}) {
    CAPTURE(budget);
    Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", budget * block_bytes}}));
    Known text(engine, folder, "text", {.blocks = 5}, {}, false);
    Known first(engine, folder, "first"), second(engine, folder, "second");
    for (int round = 0; round < 2; ++round) {
      Prompt prompt;
      text.prepare_and_run();
      sim::reset_peak(0);
      first.prepare_and_run();
      second.prepare_and_run();
      CHECK(sim::memory(0).peak <= budget * block_bytes);
      CHECK(text.loaded() == (budget > 26));
      if (budget > 22) CHECK(first.count(How::Resident) == blocks);
      if (budget > 22) CHECK(second.count(How::Resident) == blocks);
    }
  }
}

TEST_CASE("engine: a plan tells whom it sends away, as the run does") {
  toy::Folder folder;
  EngineOptions plan;
  plan.rig = toy::rig(1, 14 * block_bytes);
  plan.plan_only = true;
  Engine engine(plan);
  Known text(engine, folder, "text", {.blocks = 5}, {}, false);
  Known first(engine, folder, "first"), second(engine, folder, "second");
  for (auto* model : {&text, &first, &second}) auto use = model->prepare();
  REQUIRE(engine.planned_runs().size() == 3);
  for (const auto& run : engine.planned_runs())
    CHECK(run.placement.peak_bytes() + run.others_bytes <= 14 * block_bytes);
  CHECK(engine.planned_runs()[1].gave_way == std::vector<std::string>{"text"});
}

TEST_CASE("engine: a refused plan is refused again, and changes nothing") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", 18 * block_bytes}}));
  Known text(engine, folder, "text", {.blocks = 5}, {}, false), model(engine, folder, "a");
  text.prepare_and_run();
  auto plain = model.prepare_and_run();
  REQUIRE(text.loaded());
  for (int again = 0; again < 3; ++again) {
    CHECK(kind_of_failure([&] { auto use = model.prepare(100000); }) == ErrorKind::OutOfMemory);
    CHECK(text.loaded());
    CHECK(model.loaded());
  }
  int profiles = model.profiles;
  CHECK(at::equal(model.prepare_and_run(), plain));
  CHECK(model.profiles == profiles);
}

TEST_CASE("engine: memory that others took is found again by moving weights out") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 14 * block_bytes)));
  Known model(engine, folder, "a");
  auto use = model.prepare();
  auto plain = model.run();
  CHECK(model.count(How::Resident) == blocks);
  auto other = at::empty({4 * block_bytes - 4096},
                         at::TensorOptions().dtype(at::kByte).device(at::Device("sim:0")));
  CHECK(at::equal(model.run(), plain));
  CHECK(model.count(How::Resident) < blocks);
}

TEST_CASE("engine: idle models go before weights of the one that runs") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 18 * block_bytes)));
  Known idle(engine, folder, "idle", {.blocks = 5}, {}, false), model(engine, folder, "a");
  idle.prepare_and_run();
  auto use = model.prepare();
  auto plain = model.run();
  REQUIRE(idle.loaded());
  auto other =
      at::empty({3 * block_bytes - 4096}, at::TensorOptions().dtype(at::kByte).device("sim:0"));
  CHECK(at::equal(model.run(), plain));
  CHECK_FALSE(idle.loaded());
  CHECK(model.count(How::Resident) == blocks);
}

TEST_CASE("engine: memory that is managed elsewhere goes before weights of the one that runs") {
  toy::Folder folder;
  auto options = engine_options(toy::rig(1, 14 * block_bytes));
  at::Tensor theirs;
  std::int64_t asked = 0;
  options.foreign.free = [&](const std::string& device, std::int64_t bytes) {
    CHECK(device == "sim:0");
    asked = bytes;
    return std::exchange(theirs, at::Tensor()).defined();
  };
  Engine engine(options);
  Known model(engine, folder, "a");
  auto use = model.prepare();
  auto plain = model.run();
  theirs =
      at::empty({4 * block_bytes - 4096}, at::TensorOptions().dtype(at::kByte).device("sim:0"));
  CHECK(at::equal(model.run(), plain));
  CHECK(asked > 0);
  CHECK(model.count(How::Resident) == blocks);
}

TEST_CASE("engine: what is in use stays, and others take what is left") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", 15 * block_bytes}}));
  Known model(engine, folder, "a", {}, false), other(engine, folder, "b", {}, false);
  auto plain = model.prepare_and_run();
  auto others = other.prepare_and_run();
  REQUIRE_FALSE(model.loaded());
  {
    auto use = model.prepare();
    CHECK_FALSE(other.loaded());
    CHECK(at::equal(other.prepare_and_run(), others));
    CHECK(other.count(How::Resident) < blocks);
    CHECK(at::equal(model.run(), plain));
    CHECK(model.count(How::Resident) == blocks);
    // Nor does it go where the other runs out of memory in the middle of its step.
    auto inner = other.prepare();
    auto left = sim::memory(0).limit - sim::memory(0).in_use;
    auto taken = at::empty({left - 4096}, at::TensorOptions().dtype(at::kByte).device("sim:0"));
    try {
      CHECK(at::equal(other.run(), others));
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::OutOfMemory);
    }
    CHECK(model.count(How::Resident) == blocks);
  }
  CHECK(at::equal(other.prepare_and_run(50), other.run(50)));
  CHECK(other.count(How::Resident) == blocks);
  CHECK_FALSE(model.loaded());
}

TEST_CASE("engine: models that run within each other's steps are in place at once") {
  toy::Folder folder;
  for (std::int64_t budget : {5, 7, 12, 30}) {
    CAPTURE(budget);
    Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", budget * block_bytes}}));
    Known unet(engine, folder, "unet"), control(engine, folder, "control", {.blocks = 4});
    auto plain = unet.prepare_and_run();
    auto hint = control.prepare_and_run();
    sim::reset_peak(0);
    {
      auto uses =
          engine.prepare({{unet.weights, unet.needs(7)}, {control.weights, control.needs(7)}});
      CHECK(uses.size() == 2);
      for (int step = 0; step < 3; ++step) {
        CHECK(at::equal(control.run(), hint));
        CHECK(at::equal(unet.run(), plain));
      }
    }
    CHECK(unet.loaded());
    CHECK(control.loaded());
    CHECK(sim::memory(0).peak <= budget * block_bytes);
    if (budget == 30) CHECK(unet.count(How::Resident) + control.count(How::Resident) == 14);
  }
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", block_bytes * 3 / 2}}));
  Known unet(engine, folder, "unet"), control(engine, folder, "control", {.blocks = 4});
  CHECK(kind_of_failure([&] {
          engine.prepare({{unet.weights, unet.needs()}, {control.weights, control.needs()}});
        }) == ErrorKind::OutOfMemory);
  unet.prepare_and_run();
}

TEST_CASE("engine: of models that are moved at once, who gives memory up comes first") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", 13 * block_bytes}}));
  Known large(engine, folder, "large", {}, false), other(engine, folder, "other", {}, false);
  auto plain = other.prepare_and_run(), first = large.prepare_and_run();
  REQUIRE(large.count(How::Resident) == blocks);
  auto uses = engine.prepare({{other.weights, other.needs()}, {large.weights, large.needs()}});
  CHECK(at::equal(other.run(), plain));
  CHECK(at::equal(large.run(), first));
}

TEST_CASE("engine: a plan is kept only while what came since leaves it its memory") {
  toy::Folder folder;
  std::int64_t budget = 13 * block_bytes;
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", budget}}));
  Known model(engine, folder, "a");
  Known late(engine, folder, "late", {.blocks = 2}, {.eject = false}, false);
  auto plain = model.prepare_and_run(100);  // the rest are activations
  REQUIRE(model.count(How::Resident) > 0);
  late.prepare_and_run();
  REQUIRE(late.loaded());
  REQUIRE(model.loaded());
  int profiles = model.profiles;
  sim::reset_peak(0);
  CHECK(at::equal(model.prepare_and_run(100), plain));
  CHECK(model.profiles == profiles);
  CHECK_FALSE(late.loaded());
  CHECK(sim::memory(0).peak <= budget);
}

TEST_CASE("engine: where a load finds no room in the end, idle models make way") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  Known idle(engine, folder, "idle", {.blocks = 5}, {}, false),
      model(engine, folder, "a", {}, false);
  idle.prepare_and_run();
  sim::fail_allocation(0, 4);
  auto use = model.prepare();
  CHECK(model.count(How::Resident) == blocks);
  CHECK_FALSE(idle.loaded());
}

TEST_CASE("engine: a load that fails leaves the model unloaded, and the next one is planned anew") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  Known model(engine, folder, "a");
  sim::fail_allocation(0, 4);
  CHECK(kind_of_failure([&] { auto use = model.prepare(); }) == ErrorKind::OutOfMemory);
  CHECK_FALSE(model.loaded());
  CHECK(engine.placement_of(*model.weights) == nullptr);
  CHECK(model.prepare_and_run().isfinite().all().item<bool>());
}

TEST_CASE("engine: other LoRAs are another plan, another strength is not") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  Known model(engine, folder, "a");
  auto adapters = folder.write_lora(model.model, 2);
  auto lora = [&](const std::string& key, double strength) {
    return LoraUse{key, adapters, strength};
  };
  auto run_with = [&](std::vector<LoraUse> loras) {
    auto needs = model.needs();
    needs.loras = std::move(loras);
    auto use = engine.prepare(model.weights, needs);
    return model.run();
  };
  auto plain = run_with({}), half = run_with({lora("x", 0.5)});
  CHECK(model.profiles == 2);
  CHECK_FALSE(at::equal(plain, half));
  auto whole = run_with({lora("x", 1)});
  CHECK(model.profiles == 2);
  CHECK_FALSE(at::equal(half, whole));
  CHECK(at::equal(run_with({lora("y", 1)}), whole));
  CHECK(model.profiles == 3);
  CHECK(at::equal(run_with({}), plain));
}

TEST_CASE("engine: the CPU streams from disk what does not fit its budget") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"cpu", 6 * block_bytes}}));
  Known model(engine, folder, "a", {.compute = "cpu"});
  auto use = model.prepare();
  CHECK(model.count(How::Streamed) > 0);
  for (const auto& home : model.weights->homes())
    CHECK((home.device == "cpu" || home.device == "disk"));
  CHECK(model.run().isfinite().all().item<bool>());
}

TEST_CASE("engine: planning only loads nothing and asks for no device") {
  toy::Folder folder;
  auto rig = toy::rig(1, 5 * block_bytes);
  EngineOptions plan;
  plan.rig = rig;
  plan.plan_only = true;
  Engine engine(plan);
  Known model(engine, folder, "a");
  auto use = model.prepare();
  REQUIRE(engine.planned_runs().size() == 1);
  CHECK_FALSE(model.loaded());
  CHECK(engine.planned_runs()[0].placement.peak_bytes() <= 5 * block_bytes);
}

TEST_CASE(
    "engine: a slow host lengthens the blocks of a plan that streams, not of one that does not") {
  toy::Folder folder;
  for (bool streams : {false, true}) {
    CAPTURE(streams);
    auto rig = toy::rig(1, streams ? 5 * block_bytes : 64 << 20);
    rig.devices[0].issue_s = 1e-4;  // fifty times what the device takes for such an operation
    EngineOptions plan;
    plan.rig = rig;
    plan.plan_only = true;
    Engine engine(plan);
    Known model(engine, folder, streams ? "a" : "b");
    auto use = model.prepare();
    const auto& run = engine.planned_runs().at(0);
    double seconds = 0;
    for (const auto& block : run.blocks.blocks) seconds += block.seconds[run.system.compute];
    CHECK(run.profile.issue_s > 10 * run.profile.total_s);
    CHECK(seconds == doctest::Approx(streams ? run.profile.issue_s : run.profile.total_s));
  }
}

TEST_CASE("engine: a model in use is waited for; who waits can be stopped") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  Known model(engine, folder, "a");
  auto use = model.prepare();
  std::atomic<bool> got{false};
  auto stopped = std::make_shared<RunToken>();
  auto state = device::ThreadState::capture();
  std::thread waits([&] {
    device::ThreadState::Scope inherited(state);
    auto mine = model.prepare();
    got = true;
  });
  std::thread gives_up([&] {
    device::ThreadState::Scope inherited(state);
    RunScope scope(stopped);
    CHECK(kind_of_failure([&] { auto use = model.prepare(); }) == ErrorKind::Interrupted);
  });
  stopped->interrupt();
  gives_up.join();
  CHECK_FALSE(got);
  use = {};
  waits.join();
  CHECK(got);
}

TEST_CASE("engine: one prompt runs while others are planned, loaded and evicted") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", 16 * block_bytes}}));
  Known running(engine, folder, "running", {}, false);
  Known left(engine, folder, "left", {.blocks = 4}, {}, false),
      right(engine, folder, "right", {.blocks = 5}, {}, false);
  auto plain = running.prepare_and_run();
  auto lefts = left.prepare_and_run(), rights = right.prepare_and_run();
  std::atomic<bool> done{false};
  auto state = device::ThreadState::capture();
  std::atomic<int> rounds{0};
  std::thread others([&] {
    device::ThreadState::Scope inherited(state);
    for (int i = 0; !done || i < 4; ++i, ++rounds) {
      auto& one = i % 2 ? left : right;
      if (!at::equal(one.prepare_and_run(), i % 2 ? lefts : rights)) break;
    }
  });
  for (int round = 0; round < 5; ++round) {
    auto use = running.prepare();
    for (int step = 0; step < 5; ++step) {
      CHECK(running.count(How::Resident) > 0);
      CHECK(at::equal(running.run(), plain));
    }
  }
  done = true;
  others.join();
  CHECK(rounds >= 4);
}
