// Nodes that wait for something outside: on threads of their own, several at once.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "bench.h"

using namespace distorch;
using namespace distorch::graph;
using namespace distorch::graph::testing;

namespace {

/// Where calls meet: each waits until `wanted` of them are there.
struct Meeting {
  int wanted = 2;
  std::atomic<int> there{0}, left{0};
};

void glance() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

void run_meet(Call& call) {
  auto& meeting = call.context<Meeting>();
  ++meeting.there;
  while (meeting.there < meeting.wanted) {
    call.progress(meeting.there, meeting.wanted);
    glance();
  }
  call.out(0, call.in("x"));
  ++meeting.left;
}

/// Waits until it is told to stop.
void run_forever(Call& call) {
  ++call.context<Meeting>().there;
  try {
    while (true) {
      call.progress(1, 2);
      glance();
    }
  } catch (const Error&) {
    ++call.context<Meeting>().left;
    throw;
  }
}

struct WaitingBench : Bench {
  explicit WaitingBench(CacheMode mode = CacheMode::Classic) : Bench(mode) {
    context.set(meeting);
    auto add = [&](const char* name, void (*run)(Call&), bool background = true) {
      catalog.add({.name = name,
                   .inputs = {graph::link("x", "INT"), graph::optional(integer("n", {.def = 0}))},
                   .outputs = {"INT"},
                   .background = background,
                   .run = run});
    };
    add("Meet", run_meet);
    add("Forever", run_forever);
    add("FailInBackground", [](Call&) { throw std::runtime_error("no answer"); });
    add("Expand", [](Call& call) {
      call.expand({{"n", {{"class_type", "Number"}, {"inputs", {{"value", 1}}}}}});
      call.out_link(0, {"n", 0});
    });
    add(
        "FailWhenMet",
        [](Call& call) {
          while (call.context<Meeting>().there < call.context<Meeting>().wanted) glance();
          throw std::runtime_error("failed meanwhile");
        },
        false);
  }
  Meeting meeting;
};

Json node(const char* type, Json inputs) {
  return {{"class_type", type}, {"inputs", std::move(inputs)}};
}

}  // namespace

TEST_CASE("background: nodes that wait for each other both go on, results and order are as ever") {
  for (auto mode : {CacheMode::Classic, CacheMode::None}) {
    WaitingBench bench(mode);
    bench.meeting.wanted = 3;
    auto result = bench.run({{"1", node("Number", {{"value", 5}})},
                             {"a", node("Meet", {{"x", {"1", 0}}, {"n", 1}})},
                             {"b", node("Meet", {{"x", {"1", 0}}, {"n", 2}})},
                             {"c", node("Meet", {{"x", {"1", 0}}, {"n", 3}})},
                             {"sum", node("Add", {{"a", {"a", 0}}, {"b", {"b", 0}}})},
                             {"all", node("Add", {{"a", {"sum", 0}}, {"b", {"c", 0}}})},
                             {"show", node("Show", {{"x", {"all", 0}}})}});
    CHECK(result.status == RunStatus::Success);
    CHECK(bench.shown(result, "show") == R"(["15"])");
    auto progress = bench.events.last("progress");
    if (!progress.is_null()) CHECK(progress["max"] == 3);
    CHECK(bench.events.last("progress_state")["nodes"]["a"]["state"] == "finished");
  }
}

TEST_CASE("background: all elements of a list at once, in their order, blocked ones are left out") {
  WaitingBench bench;
  bench.meeting.wanted = 4;
  auto result = bench.run({{"list", node("Count", {{"n", 4}})},
                           {"meet", node("Meet", {{"x", {"list", 0}}, {"n", 1}})},
                           {"sum", node("Sum", {{"values", {"meet", 0}}, {"k", 10}})},
                           {"each", node("Show", {{"x", {"meet", 0}}})},
                           {"show", node("Show", {{"x", {"sum", 0}}})}});
  CHECK(bench.shown(result, "show") == R"(["60"])");
  CHECK(bench.shown(result, "each") == R"(["0","1","2","3"])");
}

TEST_CASE("background: a node that fails is named; one that fails beside it ends the others") {
  WaitingBench bench;
  auto result = bench.run({{"1", node("Number", {{"value", 5}})},
                           {"bad", node("FailInBackground", {{"x", {"1", 0}}})},
                           {"show", node("Show", {{"x", {"bad", 0}}})}});
  CHECK(result.status == RunStatus::Error);
  CHECK(result.error->node_id == "bad");
  CHECK(result.error->exception_message == "no answer\n");
  bench.meeting.wanted = 2;
  result = bench.run({{"1", node("Number", {{"value", 5}})},
                      {"f", node("Forever", {{"x", {"1", 0}}})},
                      {"g", node("Forever", {{"x", {"1", 0}}, {"n", 2}})},
                      {"bad", node("FailWhenMet", {{"x", {"1", 0}}})},
                      {"show", node("Show", {{"x", {"bad", 0}}})},
                      {"2", node("Show", {{"x", {"f", 0}}})},
                      {"3", node("Show", {{"x", {"g", 0}}})}});
  CHECK(result.status == RunStatus::Error);
  CHECK(result.error->node_id == "bad");
  CHECK(bench.meeting.left == 2);
  CHECK(bench.shown(bench.run({{"1", node("Number", {{"value", 6}})},
                               {"show", node("Show", {{"x", {"1", 0}}})}}),
                    "show") == R"(["6"])");
}

TEST_CASE("background: an interrupt ends what waits") {
  WaitingBench bench;
  RunRequest request;
  request.prompt = {{"1", node("Number", {{"value", 5}})},
                    {"f", node("Forever", {{"x", {"1", 0}}})},
                    {"show", node("Show", {{"x", {"f", 0}}})}};
  request.outputs = {"show"};
  request.context = &bench.context;
  request.token = std::make_shared<RunToken>();
  std::thread user([&] {
    while (bench.meeting.there == 0) glance();
    request.token->interrupt();
  });
  auto result = bench.executor.run(request, bench.events);
  user.join();
  CHECK(result.status == RunStatus::Interrupted);
  CHECK(bench.meeting.left == 1);
}

TEST_CASE("background: such a node must not expand") {
  WaitingBench bench;
  auto result = bench.run({{"1", node("Number", {{"value", 5}})},
                           {"e", node("Expand", {{"x", {"1", 0}}})},
                           {"show", node("Show", {{"x", {"e", 0}}})}});
  CHECK(result.status == RunStatus::Error);
  CHECK(result.error->node_id == "e");
}
