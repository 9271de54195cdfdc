#include "distorch/graph/schedule.h"

#include <doctest/doctest.h>

#include <algorithm>

#include <random>

using namespace distorch::graph;

TEST_CASE("schedule: any random graph is run whole, each node after what it waits for") {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::mt19937 random(seed);
    int count = 1 + static_cast<int>(random() % 40);
    Schedule schedule;
    std::vector<std::vector<int>> needs(count);
    for (int i = 0; i < count; ++i) REQUIRE(schedule.add(std::to_string(i), random() % 5 == 0));
    for (int i = 1; i < count; ++i)
      for (int k = static_cast<int>(random() % 4); k > 0; --k) {
        int from = static_cast<int>(random() % i);
        needs[i].push_back(from);
        schedule.block(std::to_string(from), std::to_string(i));
      }
    std::vector<bool> done(count, false);
    int ran = 0;
    while (!schedule.empty()) {
      auto id = schedule.pick();
      REQUIRE(id);
      for (int from : needs[std::stoi(*id)]) REQUIRE(done[from]);
      done[std::stoi(*id)] = true;
      schedule.finish(*id);
      ++ran;
    }
    CHECK(ran == count);
  }
}

TEST_CASE("schedule: nodes that wait for each other give no pick") {
  Schedule schedule;
  schedule.add("a", false);
  schedule.add("b", true);
  CHECK_FALSE(schedule.add("a", false));
  schedule.block("a", "b");
  schedule.block("b", "a");
  CHECK_FALSE(schedule.pick());
  CHECK(schedule.remaining().size() == 2);
}

TEST_CASE("schedule: a circle is named without those that wait for it") {
  Schedule schedule;
  for (const char* id : {"end", "a", "b", "c"}) schedule.add(id, id == std::string("end"));
  schedule.block("b", "end");
  schedule.block("a", "b");
  schedule.block("b", "c");
  schedule.block("c", "a");
  auto circle = schedule.circle();
  std::sort(circle.begin(), circle.end());
  CHECK(circle == std::vector<std::string>{"a", "b", "c"});
}

TEST_CASE("schedule: background nodes first, a suspended one is not picked") {
  Schedule schedule;
  schedule.add("shown", true);
  schedule.add("waits", false, true);
  CHECK(schedule.pick() == "waits");
  schedule.suspend("waits");
  CHECK(schedule.pick() == "shown");
  schedule.finish("shown");
  CHECK_FALSE(schedule.pick());
  schedule.resume("waits");
  CHECK(schedule.pick() == "waits");
}

TEST_CASE("schedule: before a long node quick ones that what comes after it needs") {
  Schedule schedule;
  // Two samplers in a row, each with its model; another model that only another branch needs.
  schedule.add("save", true);
  schedule.add("second", false, false, Pace::Long);
  schedule.add("first", false, false, Pace::Long);
  schedule.add("latent", false);
  schedule.add("elsewhere", false);
  schedule.add("other model", false, false, Pace::Quick);
  schedule.add("second model", false, false, Pace::Quick);
  schedule.add("second patch", false, false, Pace::Quick);
  schedule.block("latent", "first");
  schedule.block("first", "second");
  schedule.block("second model", "second patch");
  schedule.block("second patch", "second");
  schedule.block("second", "save");
  schedule.block("other model", "elsewhere");
  CHECK(schedule.after("first") == std::vector<std::string>{"second", "save"});
  CHECK(schedule.after("nowhere").empty());
  std::vector<std::string> order;
  while (auto next = schedule.pick()) {
    order.push_back(*next);
    schedule.finish(*next);
  }
  CHECK(order == std::vector<std::string>{"latent", "second model", "second patch", "first",
                                          "second", "save", "other model", "elsewhere"});
}
