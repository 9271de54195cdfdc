// Nodes that make other nodes: values held for them, loops, circles, what stays of them in the
// cache; links beyond the declared inputs.
#include <doctest/doctest.h>

#include "bench.h"

using namespace distorch;
using namespace distorch::graph;
using namespace distorch::graph::testing;

namespace {

/// A payload that no JSON can hold.
struct Thing {
  std::int64_t number = 0;
};

Value thing(std::int64_t number) { return Value::of("THING", Thing{number}); }
std::int64_t number_in(const Call& call, const char* input) {
  return call.get<Thing>(input).number;
}

Json made(const char* type, Json inputs) {
  return {{"class_type", type}, {"inputs", std::move(inputs)}};
}

/// The node that the input "value" of the call's own node is linked to.
std::string body_of(const Call& call) {
  return (*call.node_of_run(call.node_id()))["inputs"]["value"][0].get<std::string>();
}

/// A loop: the node before it again, with what it gave, and the end of the loop again.
void run_loop_end(Call& call) {
  note(call);
  auto left = call.integer("left");
  if (left == 0) return call.out(0, call.in("value"));
  Json body = *call.node_of_run(body_of(call));
  body["inputs"]["thing"] = call.hold(call.in("value"));
  call.expand(
      {{"body", body}, {"Recurse", made("LoopEnd", {{"value", {"body", 0}}, {"left", left - 1}})}});
  call.out_link(0, {"Recurse", 0});
}

/// The node before it twice, added up.
void run_two_more(Call& call) {
  Json body = *call.node_of_run(body_of(call));
  call.expand({{"x", body},
               {"y", body},
               {"sum", made("Plus", {{"thing", {"x", 0}}, {"other", {"y", 0}}})}});
  call.out_link(0, {"sum", 0});
}

/// Two nodes that wait for each other.
void run_circle(Call& call) {
  Json held = call.hold(call.in("thing"));
  call.expand({{"a", made("Plus", {{"thing", held}, {"other", {"b", 0}}})},
               {"b", made("Plus", {{"thing", {"a", 0}}, {"other", held}})}});
  call.out_link(0, {"b", 0});
}

void run_wrap(Call& call) {
  note(call);
  Json held = call.hold(call.in("thing"));
  call.expand({{"sum", made("Plus", {{"thing", held}, {"other", held}})}});
  call.out_link(0, {"sum", 0});
}

void run_total(Call& call) {
  std::int64_t sum = 0;
  for (auto& name : call.given()) sum += number_in(call, name.c_str());
  call.ui({{"text", {std::to_string(sum)}}});
}

struct ThingBench : Bench {
  explicit ThingBench(CacheMode mode = CacheMode::Classic) : Bench(mode) {
    Input one = graph::link("thing", "THING"), other = graph::link("other", "THING");
    auto add = [&](const char* name, std::vector<Input> inputs, void (*run)(Call&)) {
      catalog.add({.name = name, .inputs = std::move(inputs), .outputs = {"THING"}, .run = run});
    };
    add("Make", {integer("number", {.def = 1})}, [](Call& call) {
      note(call);
      call.out(0, thing(call.integer("number")));
    });
    add("Plus", {one, other}, [](Call& call) {
      note(call);
      call.out(0, thing(number_in(call, "thing") + number_in(call, "other")));
    });
    add("Wrap", {one}, run_wrap);
    add("Circle", {one}, run_circle);
    add("TwoMore", {graph::link("value", "THING")}, run_two_more);
    add("LoopEnd", {graph::link("value", "THING"), integer("left")}, run_loop_end);
    catalog.add({.name = "Total",
                 .inputs = {one},
                 .output_node = true,
                 .takes_more_links = true,
                 .run = run_total});
    catalog.add({.name = "Raw",
                 .inputs = {graph::link("where", "THING", {.extra = {{"rawLink", true}}})},
                 .output_node = true,
                 .run = [](Call& call) { call.ui({{"text", {call.get<Json>("where").dump()}}}); }});
  }
};

/// 1 is added to the thing as often as the loop goes round, and once more.
Json loop(int rounds, const char* added = "Make") {
  Json prompt = {{"start", made("Make", {{"number", 10}})},
                 {"step", made("Make", {{"number", 1}})},
                 {"wrapped", made("Wrap", {{"thing", {"step", 0}}})},
                 {"body", made("Plus", {{"thing", {"start", 0}}, {"other", {"step", 0}}})},
                 {"end", made("LoopEnd", {{"value", {"body", 0}}, {"left", rounds}})},
                 {"show", made("Total", {{"thing", {"end", 0}}})}};
  if (added == std::string("Wrap")) prompt["body"]["inputs"]["other"] = {"wrapped", 0};
  return prompt;
}

}  // namespace

TEST_CASE("expansion: a loop copies its nodes round by round, whatever is cached") {
  for (auto mode : {CacheMode::Classic, CacheMode::Lru, CacheMode::None}) {
    ThingBench bench(mode);
    CHECK(bench.shown(bench.run(loop(0)), "show") == R"(["11"])");
    auto result = bench.run(loop(3));
    CHECK(bench.shown(result, "show") == R"(["14"])");
    CHECK(result.meta["show"]["real_node_id"] == "show");
    Json states = bench.events.last("progress_state")["nodes"];
    CHECK(states["end.0.0.Recurse.0.0.Recurse.0.0.body"]["real_node_id"] == "end");
  }
}

TEST_CASE("expansion: without a cache a node that expands runs again where a loop needs it again") {
  ThingBench bench(CacheMode::None);
  CHECK(bench.shown(bench.run(loop(3, "Wrap")), "show") == R"(["18"])");
  CHECK(bench.journal.count("Wrap") == 4);
  ThingBench kept;
  CHECK(kept.shown(kept.run(loop(3, "Wrap")), "show") == R"(["18"])");
  CHECK(kept.journal.count("Wrap") == 1);
}

TEST_CASE("expansion: without a cache a result stays until the last made node has read it") {
  ThingBench bench(CacheMode::None);
  auto result = bench.run({{"a", made("Make", {{"number", 3}})},
                           {"b", made("Plus", {{"thing", {"a", 0}}, {"other", {"a", 0}}})},
                           {"two", made("TwoMore", {{"value", {"b", 0}}})},
                           {"show", made("Total", {{"thing", {"two", 0}}})}});
  CHECK(bench.shown(result, "show") == R"(["12"])");
}

TEST_CASE("expansion: a circle in it is the fault of the node that made it") {
  ThingBench bench;
  auto result = bench.run({{"1", made("Make", {{"number", 3}})},
                           {"maker", made("Circle", {{"thing", {"1", 0}}})},
                           {"show", made("Total", {{"thing", {"maker", 0}}})}});
  CHECK(result.status == RunStatus::Error);
  REQUIRE(result.error);
  CHECK(result.error->node_id == "maker");
  CHECK(result.error->node_type == "Circle");
  CHECK(result.error->exception_message.find("dependency cycle") != std::string::npos);
}

TEST_CASE("expansion: what it left in the cache is found again, and goes when it changes") {
  ThingBench bench;
  bench.run(loop(2));
  auto ran = bench.journal.runs.size();
  bench.run(loop(2));
  CHECK(bench.journal.runs.size() == ran);
  auto prompt = [](int value) -> Json {
    return {
        {"1", made("Number", {{"value", value}})},  {"2", made("Twice", {{"x", {"1", 0}}})},
        {"3", made("Show", {{"x", {"2", 0}}})},     {"4", made("Make", {{"number", value}})},
        {"5", made("Wrap", {{"thing", {"4", 0}}})}, {"6", made("Total", {{"thing", {"5", 0}}})}};
  };
  bench.run(prompt(1));
  auto kept = bench.executor.cached();
  for (int i = 2; i < 20; ++i) bench.run(prompt(i));
  CHECK(bench.executor.cached() == kept);
}

TEST_CASE("links beyond the declared inputs are inputs where a type takes them") {
  ThingBench bench;
  Json prompt = {{"a", made("Make", {{"number", 1}})},
                 {"b", made("Make", {{"number", 20}})},
                 {"show", made("Total", {{"thing", {"a", 0}}, {"more", {"b", 0}}, {"tag", "x"}})}};
  CHECK(bench.shown(bench.run(prompt), "show") == R"(["21"])");
  prompt["b"]["inputs"]["number"] = 30;
  CHECK(bench.shown(bench.run(prompt), "show") == R"(["31"])");
  prompt["show"]["inputs"]["more"] = {"nowhere", 0};
  auto refused = validate(prompt, bench.catalog);
  CHECK_FALSE(refused.can_run());
  CHECK(refused.lines().at(0).find("input more") != std::string::npos);
}

TEST_CASE("a raw link is given as it is, and what it leads to is not run") {
  ThingBench bench;
  auto result = bench.run(
      {{"a", made("Make", {{"number", 1}})}, {"show", made("Raw", {{"where", {"a", 0}}})}});
  CHECK(bench.shown(result, "show") == R"(["[\"a\",0]"])");
  CHECK(bench.journal.runs.empty());
}

TEST_CASE("a held value is no way for a prompt of strangers to reach values") {
  ThingBench bench;
  auto result = bench.run({{"a", made("Make", {{"number", 1}})},
                           {"w", made("Wrap", {{"thing", {"a", 0}}})},
                           {"show", made("Total", {{"thing", {"w", 0}}})},
                           {"stranger", made("Show", {{"x", {{"__held__", 1}}}})}});
  CHECK(bench.shown(result, "stranger") == R"(["{'__held__': 1}"])");
}
