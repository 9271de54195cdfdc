#include "distorch/cli/prompt_time.h"

#include <doctest/doctest.h>

using namespace distorch;
using namespace distorch::cli;
using graph::Json;
using namespace std::chrono_literals;
using Names = std::set<std::string>;

namespace {

Json node(std::vector<std::string> sources) {
  Json inputs = {{"seed", 5}, {"words", {"a", "b"}}};
  for (const auto& source : sources) inputs["from_" + source] = {source, 0};
  return {{"class_type", "Any"}, {"inputs", inputs}};
}

/// 1 loads, 2 and 3 sample from it, 4 decodes 2, 5 saves 4; 6 saves 3 and nobody asks for it.
Json prompt() {
  return {{"1", node({})},    {"2", node({"1"})}, {"3", node({"1", "lost"})},
          {"4", node({"2"})}, {"5", node({"4"})}, {"6", node({"3"})}};
}

graph::ProgressState finished(std::vector<std::string> nodes) {
  graph::ProgressState state{"p", {}};
  for (auto& id : nodes) state.nodes.push_back({.node_id = id, .state = "finished"});
  return state;
}

const NodeSeconds kPlan = {{"1", {}}, {"2", 20}, {"4", 3}, {"5", {}}};

}  // namespace

TEST_CASE("prompt time: the nodes that a run needs end at results that are there") {
  CHECK(nodes_to_run(prompt(), {"5"}, {}) == Names{"1", "2", "4", "5"});
  CHECK(nodes_to_run(prompt(), {"5", "6"}, {"2"}) == Names{"1", "3", "4", "5", "6"});
  CHECK(nodes_to_run(prompt(), {"5"}, {"5"}).empty());
  CHECK(nodes_to_run(prompt(), {"nowhere"}, {}).empty());
  Json circle = {{"1", node({"2"})}, {"2", node({"1"})}, {"3", 7}};
  CHECK(nodes_to_run(circle, {"1", "3"}, {}) == Names{"1", "2"});
}

TEST_CASE("prompt time: a node without a prediction is unknown, not zero") {
  PromptTime time(prompt(), {"5"});
  auto left = time.left(kPlan, {});
  CHECK(left.seconds == 23);
  CHECK(left.nodes == 4);
  CHECK(left.unknown == std::vector<std::string>{"1", "5"});
  CHECK_FALSE(time.left({{"1", {}}, {"5", {}}}, {}).seconds);
  CHECK(time.left({}, {}).seconds == 0);
}

TEST_CASE("prompt time: what ran, what runs, and what came from the cache") {
  PromptTime time(prompt(), {"5"});
  time.note(graph::ExecutionCached{"p", {"1"}, 0});
  time.note(graph::Executing{"p", "2", "2"});
  auto now = PromptTime::Clock::now();
  CHECK(time.left(kPlan, {}, now + 5s).seconds.value() == doctest::Approx(18).epsilon(0.01));
  CHECK(time.left(kPlan, {}, now + 60s).seconds == 3);  // late, but not less than nothing
  // The steps that it makes know better than the plan.
  CHECK(time.left(kPlan, 12, now + 60s).seconds == 15);
  CHECK(time.left(kPlan, 12).unknown == std::vector<std::string>{"5"});
  time.note(finished({"2"}));
  time.note(graph::Executing{"p", "4", "4"});
  CHECK(time.left(kPlan, 1.5).seconds == 1.5);
  time.note(finished({"2", "4"}));
  time.note(graph::Executing{"p", "5", "5"});
  auto left = time.left(kPlan, {});
  CHECK_FALSE(left.seconds);
  CHECK(left.unknown == std::vector<std::string>{"5"});
  CHECK(time.left(kPlan, 0.25).seconds == 0.25);  // it tells its steps
  time.note(finished({"2", "4", "5"}));
  left = time.left(kPlan, {});
  CHECK(left.seconds == 0);
  CHECK(left.nodes == 0);
}

TEST_CASE("prompt time: seconds as JSON") {
  CHECK(as_json(kPlan) == Json{{"1", nullptr}, {"2", 20.0}, {"4", 3.0}, {"5", nullptr}});
  CHECK(as_json(NodeSeconds{}) == Json::object());
}
