#include "distorch/streaming/engine_watch.h"

#include <doctest/doctest.h>

#include "distorch/streaming/link_traffic.h"
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

/// Remembers events; asks for the state at each, as it may.
class Recorder : public EngineObserver {
 public:
  Recorder() { engine_watch().observe(this); }
  ~Recorder() override { engine_watch().observe(nullptr); }
  void changed(const EngineEvent& event) override {
    events.push_back(event);
    last = engine_watch().state();
  }
  int count(EngineEvent::Kind kind) const {
    int n = 0;
    for (const auto& event : events) n += event.kind == kind;
    return n;
  }
  std::vector<EngineEvent> events;
  EngineState last;
};

std::int64_t carried(const std::string& lane) {
  auto all = link_bytes();
  auto found = all.find(lane);
  return found == all.end() ? 0 : found->second;
}

}  // namespace

TEST_CASE("engine's state: a model that fits rests whole on its device") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  Recorder recorder;
  Known model(engine, folder, "a");
  CHECK(engine_watch().state().models.empty());
  const auto before = carried("cpu -> sim:0");
  {
    auto use = model.prepare();
    model.run();
    auto state = engine_watch().state();
    REQUIRE(state.models.size() == 1);
    const auto& a = state.models[0];
    CHECK(a.model == "a");
    CHECK(a.compute == "sim:0");
    CHECK(a.in_use);
    CHECK(a.bytes == blocks * block_bytes);
    REQUIRE(a.shares.size() == 1);
    CHECK(a.shares[0].device == "sim:0");
    CHECK(a.shares[0].how == How::Resident);
    CHECK(a.shares[0].blocks == blocks);
    CHECK(a.shares[0].bytes == blocks * block_bytes);
    CHECK(a.peak_bytes >= a.shares[0].bytes);
    CHECK(a.peak_bytes <= a.budget_bytes);
    CHECK(a.steps == 10);
    CHECK(a.step_s > 0);
    CHECK(state.held_bytes() == std::map<std::string, std::int64_t>{{"sim:0", a.shares[0].bytes}});
  }
  CHECK_FALSE(engine_watch().state().models[0].in_use);
  CHECK(carried("cpu -> sim:0") - before == blocks * block_bytes);
  CHECK(recorder.count(EngineEvent::Kind::Placed) == 1);
  CHECK(recorder.count(EngineEvent::Kind::Used) == 1);  // its end; it began before it was in place
  CHECK_FALSE(recorder.last.models[0].in_use);

  const auto then = engine_watch().state().counts;
  model.prepare_and_run();
  CHECK(engine_watch().state().counts.placed == then.placed);
  CHECK(engine_watch().state().counts.reused == then.reused + 1);

  engine.unload_all();
  CHECK(engine_watch().state().models.empty());
  CHECK(recorder.events.back().kind == EngineEvent::Kind::Unloaded);
  CHECK(engine_watch().state().counts.evicted == then.evicted);
}

TEST_CASE("engine's state: what streams is counted on its link, each step") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20), {{"sim:0", 6 * block_bytes}}));
  Known model(engine, folder, "a");
  auto use = model.prepare();
  auto state = engine_watch().state().models.at(0);
  std::int64_t streamed = 0, total = 0;
  int count = 0;
  for (const auto& share : state.shares) {
    total += share.bytes;
    count += share.blocks;
    if (share.how != How::Streamed) continue;
    CHECK(share.device == "cpu");
    streamed += share.bytes;
  }
  CHECK(count == blocks);
  CHECK(total == state.bytes);
  CHECK(streamed > 0);
  CHECK(state.ring_bytes > 0);
  bool has_lane = false;
  for (const auto& lane : state.lanes)
    if (lane.name == "cpu -> sim:0") {
      has_lane = true;
      CHECK(lane.bytes == streamed);
    }
  CHECK(has_lane);
  model.run();
  const auto before = carried("cpu -> sim:0");
  for (int step = 0; step < 3; ++step) model.run();
  CHECK(carried("cpu -> sim:0") - before == 3 * streamed);
  CHECK(engine_watch().state().link_bytes.at("cpu -> sim:0") == carried("cpu -> sim:0"));
}

TEST_CASE("engine's state: who makes way is counted and told, with his bytes") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 18 * block_bytes)));
  Recorder recorder;
  Known idle(engine, folder, "idle", {}, false), model(engine, folder, "a", {}, false);
  const auto before = engine_watch().state().counts;
  idle.prepare_and_run();
  model.prepare_and_run();
  REQUIRE_FALSE(idle.loaded());
  auto state = engine_watch().state();
  CHECK(state.counts.placed - before.placed == 2);
  CHECK(state.counts.evicted - before.evicted == 1);
  const auto bytes = state.counts.evicted_bytes - before.evicted_bytes;
  CHECK(bytes >= blocks * block_bytes);
  REQUIRE(state.models.size() == 1);
  CHECK(state.models[0].model == "a");
  const EngineEvent* evicted = nullptr;
  for (const auto& event : recorder.events)
    if (event.kind == EngineEvent::Kind::Evicted) evicted = &event;
  REQUIRE(evicted);
  CHECK(evicted->model == "idle");
  CHECK(evicted->device == "sim:0");
  CHECK(evicted->bytes == bytes);
}

TEST_CASE("engine's state: weights that move out of a model are seen where they are then") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  Recorder recorder;
  Known model(engine, folder, "a");
  auto use = model.prepare();
  model.run();
  const auto before = engine_watch().state().counts;
  REQUIRE(engine.make_room("sim:0", 3 * block_bytes, model.weights.get()));
  auto state = engine_watch().state();
  CHECK(state.counts.shrunk == before.shrunk + 1);
  CHECK(state.counts.shrunk_bytes - before.shrunk_bytes >= 3 * block_bytes);
  CHECK(recorder.events.back().kind == EngineEvent::Kind::Shrunk);
  int streamed = 0;
  for (const auto& share : state.models.at(0).shares)
    if (share.how == How::Streamed) streamed += share.blocks;
  CHECK(streamed == model.count(How::Streamed));
  CHECK(streamed > 0);
}

TEST_CASE("engine's state: a model that is gone is not in it") {
  toy::Folder folder;
  Engine engine(engine_options(toy::rig(1, 64 << 20)));
  {
    Known model(engine, folder, "a");
    model.prepare_and_run();
    CHECK(engine_watch().state().models.size() == 1);
  }
  CHECK(engine_watch().state().models.empty());
}
