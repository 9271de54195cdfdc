#include "distorch/streaming/engine.h"

#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include "distorch/base/error.h"
#include "distorch/device/sim/sim.h"
#include "tests/streaming/toy_model.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr int blocks = 10;
constexpr std::int64_t width = 128;
constexpr std::int64_t block_bytes = (width * width + width) * 4;

/// A toy model that an engine knows.
struct Known {
  Known(Engine& engine, toy::Folder& folder, const std::string& name, PlacementRequest request = {},
        bool many_steps = true)
      : model(blocks, width),
        weights(std::make_shared<StreamedModel>(
            model.manifest(), folder.write(model, at::kFloat, name + ".safetensors"),
            StreamedOptions{.name = name, .compute = engine.device_for(request.compute)})) {
    engine.add(weights, request, many_steps);
  }

  RunNeeds needs(double steps = 10) {
    RunNeeds needs;
    needs.key = "5";
    needs.steps = steps;
    needs.profile = [this](const RigDevice& compute) {
      toy::Model fresh(blocks, width);
      return profile_model(*weights, fresh.manifest(), compute, [&](at::Device device) {
        fresh.forward(at::empty({5, width}, at::TensorOptions().device(device)));
      });
    };
    return needs;
  }

  at::Tensor run() {
    return model.forward(at::ones({5, width}).to(at::Device(weights->options().compute))).cpu();
  }

  int count(How how) const {
    return static_cast<int>(std::count_if(weights->homes().begin(), weights->homes().end(),
                                          [&](const auto& home) { return home.how == how; }));
  }

  toy::Model model;
  std::shared_ptr<StreamedModel> weights;
};

EngineOptions options(const Rig& rig, std::map<std::string, std::int64_t> budgets = {}) {
  sim::install(rig, sim::Mode::Exec);
  EngineOptions options;
  options.rig = rig;
  options.budgets = std::move(budgets);
  options.log_tables = false;
  options.default_device = "sim:0";  // also where there is a real one
  return options;
}

}  // namespace

TEST_CASE("engine: what fits is resident, the numbers are those of the plain model") {
  toy::Folder folder;
  Engine engine(options(toy::rig(1, 64 << 20)));
  Known model(engine, folder, "a");
  engine.prepare(model.weights, model.needs());
  CHECK(model.count(How::Resident) == blocks);
  CHECK(model.run().isfinite().all().item<bool>());
}

TEST_CASE("engine: a budget is a promise about the peak") {
  toy::Folder folder;
  std::int64_t budget = 6 * block_bytes;
  Engine engine(options(toy::rig(1, 64 << 20), {{"sim:0", budget}}));
  Known model(engine, folder, "a");
  engine.prepare(model.weights, model.needs());
  auto plain = model.run();
  CHECK(model.count(How::Resident) < blocks);
  CHECK(model.count(How::Resident) > 0);
  sim::reset_peak(0);
  CHECK(at::equal(model.run(), plain));
  CHECK(sim::memory(0).peak <= budget);
}

TEST_CASE("engine: budgets that make no sense are refused with both numbers") {
  auto rig = toy::rig(1, 1 << 20);
  CHECK_THROWS_WITH_AS(Engine(options(rig, {{"sim:0", std::int64_t{1} << 30}})),
                       doctest::Contains("1.00 GiB"), Error);
  CHECK_THROWS_AS(Engine(options(rig, {{"sim:7", 1 << 20}})), Error);
}

TEST_CASE("engine: models of earlier prompts give way, and only as far as needed") {
  toy::Folder folder;
  Engine engine(options(toy::rig(1, 25 * block_bytes)));
  Known first(engine, folder, "first", {}, false), second(engine, folder, "second", {}, false),
      third(engine, folder, "third", {}, false);
  engine.begin_prompt();
  engine.prepare(first.weights, first.needs());
  engine.prepare(second.weights, second.needs());
  CHECK(first.weights->loaded());
  engine.begin_prompt();
  engine.prepare(third.weights, third.needs());
  CHECK(third.count(How::Resident) == blocks);
  CHECK_FALSE(first.weights->loaded());
  CHECK(second.weights->loaded());
}

TEST_CASE("engine: both experts of a video model stay where they fit") {
  toy::Folder folder;
  Engine engine(options(toy::rig(1, 25 * block_bytes)));
  Known high(engine, folder, "high"), low(engine, folder, "low");
  engine.begin_prompt();
  engine.prepare(high.weights, high.needs());
  auto plain = high.run();
  engine.prepare(low.weights, low.needs());
  low.run();
  CHECK(high.weights->loaded());
  CHECK(low.weights->loaded());
  engine.prepare(high.weights, high.needs());
  CHECK(at::equal(high.run(), plain));
  CHECK(low.weights->loaded());
}

TEST_CASE("engine: memory that others took is found again by moving weights out") {
  toy::Folder folder;
  Engine engine(options(toy::rig(1, 14 * block_bytes)));
  Known model(engine, folder, "a");
  engine.prepare(model.weights, model.needs());
  auto plain = model.run();
  CHECK(model.count(How::Resident) == blocks);
  auto other = at::empty({4 * block_bytes - 4096},
                         at::TensorOptions().dtype(at::kByte).device(at::Device("sim:0")));
  CHECK(at::equal(model.run(), plain));
  CHECK(model.count(How::Resident) < blocks);
}

TEST_CASE("engine: the CPU streams from disk what does not fit its budget") {
  toy::Folder folder;
  Engine engine(options(toy::rig(1, 64 << 20), {{"cpu", 6 * block_bytes}}));
  Known model(engine, folder, "a", {.compute = "cpu"});
  engine.prepare(model.weights, model.needs());
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
  engine.prepare(model.weights, model.needs());
  REQUIRE(engine.planned_runs().size() == 1);
  CHECK_FALSE(model.weights->loaded());
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
    engine.prepare(model.weights, model.needs());
    const auto& run = engine.planned_runs().at(0);
    double seconds = 0;
    for (const auto& block : run.blocks.blocks) seconds += block.seconds[run.system.compute];
    CHECK(run.profile.issue_s > 10 * run.profile.total_s);
    CHECK(seconds == doctest::Approx(streams ? run.profile.issue_s : run.profile.total_s));
  }
}
