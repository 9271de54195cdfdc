#include "distorch/graph/executor.h"

#include <doctest/doctest.h>

#include "bench.h"
#include "distorch/base/run_token.h"
#include "distorch/graph/upcoming.h"
#include "distorch/graph/validation.h"

using namespace distorch;
using namespace distorch::graph;
using namespace distorch::graph::testing;

namespace {

const char* kSmall = R"({
  "1": {"class_type": "Number", "inputs": {"value": 5}},
  "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 2}},
  "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}}})";

}  // namespace

TEST_CASE("a run: results, order of messages, history") {
  Bench bench;
  RunResult result = bench.run(kSmall);
  CHECK(result.status == RunStatus::Success);
  CHECK(bench.shown(result, "3") == R"(["7"])");
  CHECK(bench.events.lines ==
        std::vector<std::string>{
            "execution_start", "execution_cached", "progress_state 1 running", "executing 1",
            "progress_state 1 finished", "progress_state 2 running", "executing 2",
            "progress_state 2 finished", "progress_state 3 running", "executing 3", "executed 3",
            "progress_state 3 finished", "execution_success"});
  REQUIRE(result.messages.size() == 3);
  CHECK(result.messages[0].first == "execution_start");
  CHECK(result.messages[2].first == "execution_success");
  CHECK(result.meta["3"].dump() ==
        R"({"node_id":"3","display_node":"3","parent_node":null,"real_node_id":"3"})");
  CHECK(to_json(finished("p")).dump() ==
        R"({"type":"executing","data":{"node":null,"prompt_id":"p"}})");
}

TEST_CASE("cache: an unchanged prompt runs nothing and shows the stored output again") {
  Bench bench;
  bench.run(kSmall);
  RunResult again = bench.run(kSmall);
  CHECK(bench.journal.runs.size() == 3);
  CHECK(bench.shown(again, "3") == R"(["7"])");
  CHECK(bench.events.last("execution_cached")["nodes"].dump() == R"(["1","2","3"])");
  CHECK(bench.events.lines == std::vector<std::string>{"execution_start", "execution_cached",
                                                       "executed 3", "progress_state 3 finished",
                                                       "execution_success"});
}

TEST_CASE("cache: ids, titles and the order of inputs do not matter, constants do") {
  Bench bench;
  bench.run(kSmall);
  bench.run(R"({
    "x": {"class_type": "Show", "inputs": {"x": ["b", 0]}, "_meta": {"title": "t"}},
    "b": {"class_type": "Add", "inputs": {"b": 2, "a": ["a", 0]}},
    "a": {"class_type": "Number", "inputs": {"value": 5}}})");
  CHECK(bench.journal.runs.size() == 3);
  Json changed = prompt_of(kSmall);
  changed["2"]["inputs"]["b"] = 3;
  RunResult result = bench.run(changed);
  CHECK(bench.shown(result, "3") == R"(["8"])");
  CHECK(bench.journal.runs.size() == 5);  // 2 and 3 again, not 1
  bench.run(kSmall);                      // classic: the old results are gone
  CHECK(bench.journal.runs.size() == 7);
}

TEST_CASE("cache: a run of some outputs leaves what the others have") {
  Bench bench;
  Json prompt = prompt_of(kSmall);
  prompt["4"] = {{"class_type", "Number"}, {"inputs", {{"value", 6}}}};
  prompt["5"] = {{"class_type", "Show"}, {"inputs", {{"x", {"4", 0}}, {"tag", "t"}}}};
  bench.run(prompt);
  auto ran = bench.journal.runs.size();
  RunRequest request;
  request.prompt = prompt;
  request.outputs = {"5"};
  request.context = &bench.context;
  auto result = bench.executor.run(request, bench.events);
  CHECK(bench.events.last("execution_cached")["nodes"].dump() == R"(["1","2","3","4","5"])");
  CHECK(result.outputs.size() == 1);
  bench.run(prompt);
  CHECK(bench.journal.runs.size() == ran);
}

TEST_CASE("cache: LRU keeps the last ones, none keeps nothing, release empties") {
  Json changed = prompt_of(kSmall);
  changed["2"]["inputs"]["b"] = 3;
  Bench lru(CacheMode::Lru, 10);
  lru.run(kSmall);
  lru.run(changed);
  lru.run(kSmall);
  CHECK(lru.journal.runs.size() == 5);
  lru.executor.release();
  CHECK(lru.executor.cached() == 0);
  lru.run(kSmall);
  CHECK(lru.journal.runs.size() == 8);

  Bench none(CacheMode::None);
  CHECK(none.shown(none.run(kSmall), "3") == R"(["7"])");
  CHECK(none.executor.cached() == 0);
  none.run(kSmall);
  CHECK(none.journal.runs.size() == 6);
}

TEST_CASE("cache mode none: a result's memory goes when its last reader has run") {
  Catalog catalog;
  auto alive = std::make_shared<int>(0);
  std::weak_ptr<int> watch;
  catalog.add({.name = "Make", .outputs = {"THING"}, .run = [&](Call& call) {
                 auto thing = std::make_shared<int>(1);
                 watch = thing;
                 call.out(0, Value::of("THING", thing));
               }});
  catalog.add({.name = "Use",
               .inputs = {graph::link("x", "THING")},
               .outputs = {"INT"},
               .run = [](Call& call) { call.out(0, Value::constant(1)); }});
  bool gone = false;
  catalog.add(
      {.name = "End", .inputs = {graph::link("x", "INT")}, .output_node = true, .run = [&](Call&) {
         gone = watch.expired();
       }});
  for (CacheMode mode : {CacheMode::None, CacheMode::Classic}) {
    Executor executor(catalog, mode);
    Recorder events;
    RunRequest request;
    request.prompt = prompt_of(
        R"({"1":{"class_type":"Make","inputs":{}},"2":{"class_type":"Use","inputs":{"x":["1",0]}},
                                  "3":{"class_type":"End","inputs":{"x":["2",0]}}})");
    request.outputs = {"3"};
    CHECK(executor.run(request, events).status == RunStatus::Success);
    CHECK(gone == (mode == CacheMode::None));
  }
}

TEST_CASE("cache: two equal branches run once; types that ask for their id do not share") {
  Bench bench;
  bench.run(R"({
    "1": {"class_type": "Number", "inputs": {"value": 5}}, "2": {"class_type": "Number", "inputs": {"value": 5}},
    "3": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": ["2", 0]}},
    "4": {"class_type": "Show", "inputs": {"x": ["3", 0]}}})");
  CHECK(bench.journal.count("Number") == 1);
  bench.run(R"({
    "1": {"class_type": "Own", "inputs": {"value": 5}}, "2": {"class_type": "Own", "inputs": {"value": 5}},
    "3": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": ["2", 0]}},
    "4": {"class_type": "Show", "inputs": {"x": ["3", 0]}}})");
  CHECK(bench.journal.count("Own") == 2);
}

TEST_CASE("cache: the change value decides, and without one the node always runs") {
  Bench bench;
  const char* prompt = R"({"1": {"class_type": "Watched", "inputs": {"file": "f"}},
                           "2": {"class_type": "Show", "inputs": {"x": ["1", 0]}}})";
  bench.journal.change["f"] = "hash a";
  bench.run(prompt);
  bench.run(prompt);
  CHECK(bench.journal.count("Watched") == 1);
  bench.journal.change["f"] = "hash b";
  bench.run(prompt);
  CHECK(bench.journal.count("Watched") == 2);
  bench.journal.change["f"] = "?";
  bench.run(prompt);
  bench.run(prompt);
  CHECK(bench.journal.count("Watched") == 4);
  CHECK(bench.journal.count("Show") == 4);
}

TEST_CASE("node state lives as long as the id and type are in consecutive prompts") {
  Bench bench;
  auto prompt = [](int value) {
    Json p = prompt_of(
        R"({"1": {"class_type": "Own", "inputs": {"value": 0}}, "2": {"class_type": "Show", "inputs": {"x": ["1", 0]}}})");
    p["1"]["inputs"]["value"] = value;
    return p;
  };
  CHECK(bench.shown(bench.run(prompt(1)), "2") == R"(["1"])");
  CHECK(bench.shown(bench.run(prompt(2)), "2") == R"(["2"])");
  bench.run(kSmall);
  CHECK(bench.shown(bench.run(prompt(3)), "2") == R"(["1"])");
}

TEST_CASE("lists: calls by index, last element repeated, whole lists, concatenated UI") {
  Bench bench;
  RunResult result = bench.run(R"({
    "1": {"class_type": "Count", "inputs": {"n": 3}}, "2": {"class_type": "Count", "inputs": {"n": 2}},
    "3": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": ["2", 0]}},
    "4": {"class_type": "Show", "inputs": {"x": ["3", 0]}},
    "5": {"class_type": "Sum", "inputs": {"values": ["3", 0], "k": 10}},
    "6": {"class_type": "Show", "inputs": {"x": ["5", 0]}}})");
  CHECK(bench.shown(result, "4") == R"(["0","2","3"])");
  CHECK(bench.shown(result, "6") == R"(["50"])");
  CHECK(bench.journal.count("Add") == 3);
  CHECK(bench.journal.count("Sum") == 1);
}

TEST_CASE("lists: an empty one alone gives one call, beside others it is an error") {
  Bench bench;
  RunResult alone = bench.run(R"({
    "1": {"class_type": "Count", "inputs": {"n": 0}}, "2": {"class_type": "Add", "inputs": {"a": ["1", 0]}},
    "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}}})");
  CHECK(bench.shown(alone, "3") == R"(["10"])");
  RunResult beside = bench.run(R"({
    "1": {"class_type": "Count", "inputs": {"n": 0}}, "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 1}},
    "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}}})");
  CHECK(beside.status == RunStatus::Error);
  CHECK(beside.error->exception_message.find("empty list") != std::string::npos);
}

TEST_CASE("lazy inputs: the other branch does not run, its nodes come when they are asked for") {
  Bench bench;
  const char* text = R"({
    "1": {"class_type": "Number", "inputs": {"value": 1}}, "2": {"class_type": "Steps", "inputs": {"n": 2}},
    "3": {"class_type": "Pick", "inputs": {"first": true, "a": ["1", 0], "b": ["2", 0]}},
    "4": {"class_type": "Show", "inputs": {"x": ["3", 0]}}})";
  RunResult result = bench.run(text);
  CHECK(bench.shown(result, "4") == R"(["1"])");
  CHECK(bench.journal.count("Steps") == 0);
  int asked = 0;
  for (auto& line : bench.events.lines) asked += line == "executing 3";
  CHECK(asked == 2);
  Json other = prompt_of(text);
  other["3"]["inputs"]["first"] = false;
  CHECK(bench.shown(bench.run(other), "4") == R"(["2"])");
  CHECK(bench.journal.count("Steps") == 1);
}

TEST_CASE("expansion: the parent's result comes from the graph it made; ids lead back") {
  Bench bench;
  const char* text = R"({
    "1": {"class_type": "Number", "inputs": {"value": 4}}, "2": {"class_type": "Twice", "inputs": {"x": ["1", 0]}},
    "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}}})";
  RunResult result = bench.run(text);
  CHECK(bench.shown(result, "3") == R"(["8"])");
  Json states = bench.events.last("progress_state")["nodes"];
  REQUIRE(states.contains("2.0.0.sum"));
  CHECK(states["2.0.0.sum"]["display_node_id"] == "2");
  CHECK(states["2.0.0.sum"]["parent_node_id"] == "2");
  CHECK(states["2.0.0.sum"]["real_node_id"] == "2");
  CHECK(bench.journal.count("Number") == 1);  // the inner one equals node 1
  std::size_t before = bench.journal.runs.size();
  bench.run(text);
  CHECK(bench.journal.runs.size() == before);

  Bench none(CacheMode::None);
  CHECK(none.shown(none.run(text), "3") == R"(["8"])");
}

TEST_CASE("blockers: silent ones pass, a message is reported once and the run succeeds") {
  Bench bench;
  auto prompt = [](const char* message) {
    Json p = prompt_of(R"({
      "1": {"class_type": "Block", "inputs": {"message": ""}}, "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 1}},
      "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}}})");
    p["1"]["inputs"]["message"] = message;
    return p;
  };
  RunResult silent = bench.run(prompt(""));
  CHECK(silent.status == RunStatus::Success);
  CHECK(bench.journal.runs == std::vector<std::string>{"1 Block"});
  CHECK(bench.events.count("execution_error") == 0);
  RunResult loud = bench.run(prompt("not today"));
  CHECK(loud.status == RunStatus::Success);
  CHECK(bench.events.count("execution_error") == 1);
  CHECK(bench.events.last("execution_error")["exception_message"] ==
        "Execution Blocked: not today");
  CHECK(bench.events.last("execution_error")["node_id"] == "2");
  CHECK(bench.shown(loud, "3") == "nothing");
}

TEST_CASE("errors: node, type and inputs are named; what finished stays cached") {
  Bench bench;
  const char* text = R"({
    "1": {"class_type": "Number", "inputs": {"value": 4}}, "2": {"class_type": "Fail", "inputs": {"x": ["1", 0], "how": "error"}},
    "3": {"class_type": "Show", "inputs": {"x": ["2", 0]}}})";
  RunResult result = bench.run(text);
  CHECK(result.status == RunStatus::Error);
  REQUIRE(result.error);
  CHECK(result.error->node_id == "2");
  CHECK(result.error->node_type == "Fail");
  CHECK(result.error->exception_type == "ValueError");
  CHECK(result.error->exception_message == "node 2 (Fail): x is odd\n");
  CHECK(result.error->current_inputs.dump() == R"({"how":["error"],"x":[4]})");
  CHECK(result.error->executed == std::vector<std::string>{"1"});
  CHECK(bench.events.count("execution_success") == 0);
  CHECK(bench.events.last("progress_state")["nodes"]["2"]["state"] == "error");
  bench.run(text);
  CHECK(bench.journal.count("Number") == 1);
  Json memory = prompt_of(text);
  memory["2"]["inputs"]["how"] = "memory";
  result = bench.run(memory);
  CHECK(result.error->exception_type == "OOMError");
  CHECK(result.error->exception_message.find("Offload more") != std::string::npos);
}

TEST_CASE("progress and previews: in step order; an interrupt stops at the next step") {
  Bench bench;
  const char* text =
      R"({"1": {"class_type": "Steps", "inputs": {"n": 2}}, "2": {"class_type": "Show", "inputs": {"x": ["1", 0]}}})";
  bench.run(text);
  std::vector<std::string> steps(bench.events.lines.begin() + 3, bench.events.lines.begin() + 10);
  CHECK(steps == std::vector<std::string>{"executing 1", "progress_state 1 running", "preview",
                                          "progress 1", "progress_state 1 running", "preview",
                                          "progress 2"});
  CHECK(bench.events.last("progress").dump() ==
        R"({"value":2,"max":2,"prompt_id":"p","node":"1"})");

  struct Stopper : Recorder {
    void send(const Event& event) override {
      Recorder::send(event);
      if (std::holds_alternative<Progress>(event)) current_run()->interrupt();
    }
  } stopper;
  Bench other;
  RunRequest request;
  request.prompt = prompt_of(text);
  request.outputs = {"2"};
  RunResult result = other.executor.run(request, stopper);
  CHECK(result.status == RunStatus::Interrupted);
  CHECK(stopper.count("progress") == 1);
  CHECK(stopper.last("execution_interrupted")["node_id"] == "1");
  CHECK(other.executor.run(request, other.events).status == RunStatus::Success);
}

TEST_CASE("a run that is stopped before it begins stays stopped, and no other run is") {
  Bench bench;
  RunRequest request;
  request.prompt = prompt_of(R"({"1": {"class_type": "Number", "inputs": {"value": 1}},
                                 "2": {"class_type": "Show", "inputs": {"x": ["1", 0]}}})");
  request.outputs = {"2"};
  RunRequest waiting = request;
  waiting.token = std::make_shared<RunToken>("waiting");
  waiting.token->interrupt();
  CHECK(bench.executor.run(request, bench.events).status == RunStatus::Success);
  bench.executor.release();
  CHECK(bench.executor.run(waiting, bench.events).status == RunStatus::Interrupted);
  CHECK(bench.executor.run(request, bench.events).status == RunStatus::Success);
}

TEST_CASE("nodes find their run's token, and run as their context says") {
  Catalog catalog;
  bool inside = false, was_inside = false;
  std::string prompt_id;
  catalog.add({.name = "Look", .output_node = true, .run = [&](Call& call) {
                 was_inside = inside;
                 prompt_id = call.context<RunToken>().prompt_id();
               }});
  Context context;
  context.set_surround([&](const Context::Work& work) {
    inside = true;
    work();
    inside = false;
  });
  Executor executor(catalog);
  Recorder events;
  RunRequest request;
  request.prompt = prompt_of(R"({"1": {"class_type": "Look", "inputs": {}}})");
  request.outputs = {"1"};
  request.prompt_id = "seven";
  request.context = &context;
  CHECK(executor.run(request, events).status == RunStatus::Success);
  CHECK(was_inside);
  CHECK(prompt_id == "seven");
}

TEST_CASE("order: previews come as early as they can") {
  Bench bench;
  bench.run(R"({
    "1": {"class_type": "Number", "inputs": {"value": 1}}, "2": {"class_type": "Add", "inputs": {"a": ["1", 0], "b": 1}},
    "3": {"class_type": "Add", "inputs": {"a": ["2", 0], "b": 1}}, "4": {"class_type": "Show", "inputs": {"x": ["3", 0]}},
    "5": {"class_type": "Show", "inputs": {"x": ["1", 0]}}})");
  CHECK(bench.journal.runs ==
        std::vector<std::string>{"1 Number", "5 Show", "2 Add", "3 Add", "4 Show"});
}

TEST_CASE("what comes after a node is known to it, with the inputs that are there by then") {
  Bench bench;
  std::vector<std::string> seen;
  bench.catalog.add(
      {.name = "Ask", .inputs = {integer("a")}, .outputs = {"INT"}, .run = [&](Call& call) {
         for (const auto& node : call.context<Upcoming>().after(call.node_id())) {
           auto line = node.type->name;
           for (const auto& [name, value] : node.values)
             line += " " + name + "=" + value.as<Json>().dump();
           seen.push_back(line);
         }
         call.out(0, Value::constant(1));
       }});
  Paces paces{[](const NodeType& type) {
    return type.name == "Number" ? Pace::Quick : type.name == "Ask" ? Pace::Long : Pace::Usual;
  }};
  const char* prompt = R"({
    "1": {"class_type": "Ask", "inputs": {"a": 1}},
    "2": {"class_type": "Number", "inputs": {"value": 7}},
    "3": {"class_type": "Add", "inputs": {"a": ["2", 0], "b": ["1", 0]}},
    "4": {"class_type": "Show", "inputs": {"x": ["3", 0], "tag": "end"}}})";
  bench.run(prompt);
  CHECK(seen == std::vector<std::string>{"Add", "Show tag=\"end\""});
  seen.clear();
  bench.executor.release();
  bench.context.set(paces);
  bench.run(prompt);
  CHECK(seen == std::vector<std::string>{"Add a=7", "Show tag=\"end\""});
}
