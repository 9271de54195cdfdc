#include "distorch/cli/remote_run.h"

#include <doctest/doctest.h>

using namespace distorch;
using namespace distorch::cli;
using graph::Json;

TEST_CASE("messages of a server become the events they were made of") {
  graph::ExecutionError error;
  error.prompt_id = "p";
  error.node_id = "3";
  error.node_type = "KSampler";
  error.executed = {"1"};
  error.exception_message = "no\n";
  error.exception_type = "ValueError";
  error.traceback = {"in node 3\n"};
  error.timestamp = 8;
  const std::vector<graph::Event> events = {
      graph::ExecutionStart{"p", 5},
      graph::ExecutionCached{"p", {"1", "2"}, 6},
      graph::Executing{"p", "3", "3"},
      graph::Executing{"p", std::nullopt, ""},
      graph::Progress{"p", "3", 2, 20},
      graph::Executed{"p", "4", "4", {{"images", Json::array()}}},
      graph::ExecutionSuccess{"p", 7},
      error,
      graph::ExecutionInterrupted{"p", "3", "KSampler", {"1"}, 9}};
  for (const auto& event : events) {
    auto json = graph::to_json(event);
    auto back = event_of(json);
    REQUIRE(back);
    CHECK(graph::to_json(*back).dump() == json.dump());
  }
}

TEST_CASE("messages that tell of no event are left out") {
  for (const char* text :
       {R"({"type":"status","data":{"status":{}}})", R"({"type":"progress"})", R"({"data":{}})",
        R"({"type":5,"data":{}})", "[]", "5", R"({"type":"executing","data":[]})"})
    CHECK(!event_of(Json::parse(text)));
}
