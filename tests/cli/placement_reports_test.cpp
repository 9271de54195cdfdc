#include "distorch/cli/placement_reports.h"

#include <doctest/doctest.h>

#include <thread>

#include "tests/server/fake_messages.h"
#include "tests/streaming/known_models.h"

using namespace distorch;
using namespace distorch::cli;
using graph::Json;
using namespace std::chrono_literals;

namespace {

struct Nothing final : graph::EventSink {
  void send(const graph::Event&) override { ++seen; }
  int seen = 0;
};

/// The newest that was sent.
Json newest(const test::FakeMessages& messages) {
  auto sent = messages.sent();
  REQUIRE(!sent.empty());
  CHECK(sent.back().type == "distorch_placement");
  CHECK(sent.back().client == "page");
  return sent.back().data;
}

const Json& named(const Json& list, const char* key, const std::string& name) {
  for (const auto& entry : list)
    if (entry[key] == name) return entry;
  throw std::runtime_error("there is no " + name);
}

}  // namespace

TEST_CASE("placement reports: what is placed, streamed and evicted is told as it happens") {
  toy::Folder folder;
  constexpr std::int64_t block = (128 * 128 + 128) * 4;
  streaming::Engine engine(toy::engine_options(toy::rig(1, 64 << 20), {{"sim:0", 6 * block}}));
  test::FakeMessages messages;
  PlacementReports reports(engine, messages);
  toy::Known model(engine, folder, "a");
  model.prepare_and_run();
  CHECK(messages.sent().empty());  // nobody asked
  auto before = reports.feed().now();
  CHECK(before["models"].size() == 1);

  reports.feed().subscribe("page");
  engine.unload_all();
  CHECK(newest(messages)["models"].empty());
  std::this_thread::sleep_for(150ms);
  auto use = model.prepare();
  model.run();
  auto now = newest(messages);
  REQUIRE(now["models"].size() == 1);
  const auto& told = now["models"][0];
  CHECK(told["model"] == "a");
  CHECK(told["compute"] == "sim:0");
  CHECK(told["bytes"] == 10 * block);
  CHECK(told["peak_bytes"] <= told["budget_bytes"]);
  CHECK(told["step_s"] > 0);
  std::int64_t bytes = 0;
  for (const auto& share : told["shares"]) bytes += share["bytes"].get<std::int64_t>();
  CHECK(bytes == 10 * block);
  CHECK(named(told["shares"], "how", "streamed")["device"] == "cpu");
  const auto& device = named(now["devices"], "device", "sim:0");
  CHECK(device["budget_bytes"] == 6 * block);
  CHECK(device["held_bytes"] > 0);
  CHECK(device["held_bytes"] <= 6 * block);
  CHECK(now["counts"]["placed"] == before["counts"]["placed"].get<int>() + 1);
  CHECK(now["run"].is_null());
  CHECK(named(reports.feed().now()["links"], "lane", "cpu -> sim:0")["bytes"] > 0);
}

TEST_CASE("placement reports: how far a run is, and what it still takes") {
  toy::Folder folder;
  streaming::Engine engine(toy::engine_options(toy::rig(1, 64 << 20)));
  test::FakeMessages messages;
  PlacementReports reports(engine, messages);
  reports.feed().subscribe("page");
  Nothing sink;
  Json prompt = {{"5", {{"class_type", "KSampler"}}},
                 {"6", {{"class_type", "VAEDecode"}, {"inputs", {{"samples", {"5", 0}}}}}}};
  {
    PlacementReports::Run run(&reports, sink, prompt, {"6"});
    run.send(graph::Executing{"p", "5", "5"});
    CHECK(newest(messages)["run"]["type"] == "KSampler");
    CHECK(newest(messages)["run"]["left_s"].is_null());
    for (int step = 1; step <= 3; ++step) {
      run.send(graph::Progress{"p", "5", static_cast<double>(step), 10});
      std::this_thread::sleep_for(20ms);
    }
    auto now = reports.feed().now()["run"];
    CHECK(now["prompt_id"] == "p");
    CHECK(now["value"] == 3);
    CHECK(now["max"] == 10);
    CHECK(now["measured"] == true);
    CHECK(now["step_s"] >= 0.02);
    CHECK(now["left_s"].get<double>() == doctest::Approx(7 * now["step_s"].get<double>()));
    CHECK(messages.sent().size() == 1);  // the steps came within half a second
    CHECK(now["prompt"].is_null());      // nobody has planned it
    reports.expect("other", {{"5", 100}});
    reports.expect("p", {{"5", 1}, {"6", 50}});
    now = newest(messages)["run"];
    CHECK(now["prompt"]["left_s"].get<double>() ==
          doctest::Approx(50 + now["left_s"].get<double>()));
    CHECK(now["prompt"]["nodes"] == 2);
    CHECK(now["prompt"]["unknown"].empty());
    reports.expect("p", {{"5", 1}, {"6", {}}});
    now = newest(messages)["run"];
    CHECK(now["prompt"]["left_s"] == now["left_s"]);
    CHECK(now["prompt"]["unknown"] == Json{"6"});
  }
  CHECK(newest(messages)["run"].is_null());
  CHECK(sink.seen == 4);
  PlacementReports::Run alone(nullptr, sink, prompt, {});
  alone.send(graph::Progress{"p", "5", 1, 10});
  CHECK(sink.seen == 5);
}
