#include "distorch/cli/waterfall.h"

#include <doctest/doctest.h>

#include <thread>

#include "distorch/nodes/catalog.h"

using namespace distorch;
using graph::Json;

namespace {

struct Counting final : graph::EventSink {
  void send(const graph::Event&) override { ++events; }
  int events = 0;
};

Json prompt() {
  return {{"1", {{"class_type", "CheckpointLoaderSimple"}, {"inputs", Json::object()}}},
          {"2", {{"class_type", "CLIPTextEncode"}, {"inputs", Json::object()}}},
          {"3", {{"class_type", "KSampler"}, {"inputs", Json::object()}}},
          {"4", {{"class_type", "VAEDecode"}, {"inputs", Json::object()}}},
          {"5", {{"class_type", "SaveImage"}, {"inputs", Json::object()}}},
          {"6", {{"class_type", "ImageInvert"}, {"inputs", Json::object()}}}};
}

void pass_some_time() { std::this_thread::sleep_for(std::chrono::milliseconds(2)); }

}  // namespace

TEST_CASE("waterfall: every node's time is in the part that it belongs to, steps apart") {
  nodes::App app{nodes::Settings{}};
  graph::Catalog catalog;
  nodes::add_all(catalog, app);
  Counting next;
  const auto what = prompt();
  cli::Waterfall waterfall(app.engine.machine(), catalog, what, next);
  waterfall.add("program start", 0.5);
  const auto node = [&](const char* id) {
    waterfall.send(graph::Executing{"", std::string(id), id});
    pass_some_time();
  };
  node("1");
  node("2");
  node("3");
  waterfall.changed({streaming::EngineEvent::Kind::Planned, "tiny", "cpu", 0});
  pass_some_time();
  // What another thread brings meanwhile is nobody's part.
  std::thread([&] {
    waterfall.changed({streaming::EngineEvent::Kind::Planned, "next", "cpu", 0});
  }).join();
  waterfall.changed({streaming::EngineEvent::Kind::Placed, "tiny", "cpu", 0});
  for (int step = 1; step <= 3; ++step) {
    pass_some_time();
    waterfall.send(graph::Progress{"", "3", static_cast<double>(step), 3});
  }
  pass_some_time();
  node("6");
  node("4");
  node("5");
  waterfall.send(graph::Executing{"", {}, ""});
  CHECK(next.events == 10);
  std::vector<std::string> names;
  for (const auto& part : waterfall.parts()) {
    CAPTURE(part.name);
    names.push_back(part.name);
    CHECK(part.seconds > 1e-3);
    CHECK(!part.limit_s);
  }
  // Before the first node is nobody's time, as that of nodes of no known kind.
  CHECK(names == std::vector<std::string>{"program start", "other nodes", "opening",
                                          "text encoders", "plans", "weights", "first step",
                                          "steps", "after the steps", "VAE", "saving"});
  CHECK(waterfall.json().size() == names.size());
  CHECK(waterfall.text("cold").find("in all") != std::string::npos);
}

TEST_CASE("waterfall: the process knows when it was started") {
  const double now = cli::seconds_since_start();
  CHECK(now > 0);
  pass_some_time();
  CHECK(cli::seconds_since_start() >= now);
}
