#include "distorch/nn/attention_choice.h"

#include <doctest/doctest.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <thread>

#include "distorch/base/atomic_file.h"
#include "tests/support/temporary_folder.h"

using namespace distorch;
using namespace distorch::nn;

namespace {

/// Ways that take so many seconds of a clock of their own.
struct Clock {
  double now = 0;
  int runs = 0;
  MeasuredChoice::Way way(const std::string& name, double seconds) {
    return {name, [this, seconds] {
              now += seconds;
              ++runs;
            }};
  }
  std::string measure(MeasuredChoice& choice, const std::vector<MeasuredChoice::Way>& ways,
                      const std::string& shape = "shape") {
    return choice.measure("card", shape, ways, [] {}, [this] { return now; });
  }
};

}  // namespace

TEST_CASE("the fastest way is chosen and remembered") {
  test::TemporaryFolder folder("choices");
  const auto file = folder.path() / "below" / "choices.json";
  Clock clock;
  {
    MeasuredChoice choice(file);
    CHECK(choice.known("card", "shape").empty());
    CHECK(clock.measure(choice,
                        {clock.way("a", 3e-3), clock.way("b", 2e-3), clock.way("c", 1e-3)}) == "c");
    CHECK(choice.known("card", "shape") == "c");
    CHECK(choice.known("card", "another").empty());
    CHECK(choice.known("another", "shape").empty());
  }
  MeasuredChoice next(file);
  CHECK(next.known("card", "shape") == "c");
  SUBCASE("what another process has remembered since is kept, and no choice changes") {
    MeasuredChoice other(file);
    clock.measure(other, {clock.way("a", 1e-3)}, "theirs");
    clock.measure(other, {clock.way("a", 1e-3)}, "shape");
    clock.measure(next, {clock.way("b", 1e-3)}, "ours");
    MeasuredChoice last(file);
    CHECK(last.known("card", "theirs") == "a");
    CHECK(last.known("card", "ours") == "b");
    CHECK(next.known("card", "shape") == "c");
  }
}

TEST_CASE("of ways that are nearly equal the first stays") {
  test::TemporaryFolder folder("choices");
  MeasuredChoice choice(folder.path() / "choices.json");
  Clock clock;
  CHECK(clock.measure(choice, {clock.way("a", 1.00e-3), clock.way("b", 0.97e-3)}, "x") == "a");
  CHECK(clock.measure(choice, {clock.way("a", 1.00e-3), clock.way("b", 0.94e-3)}, "y") == "b");
  // In a process the first choice stands.
  CHECK(clock.measure(choice, {clock.way("a", 1.00e-3), clock.way("b", 0.10e-3)}, "x") == "a");
}

TEST_CASE("a long way is measured by few runs, a hopeless one by two") {
  test::TemporaryFolder folder("choices");
  MeasuredChoice choice(folder.path() / "choices.json");
  Clock clock;
  clock.measure(choice, {clock.way("a", 1)}, "long");
  CHECK(clock.runs == 2);
  clock.runs = 0;
  clock.measure(choice, {clock.way("a", 1e-3)}, "short");
  CHECK(clock.runs == 8);
  clock.runs = 0;
  clock.measure(choice, {clock.way("a", 1e-3), clock.way("b", 4e-3)}, "hopeless");
  CHECK(clock.runs == 10);
}

TEST_CASE("a way that throws is not chosen, and where the first throws nothing is remembered") {
  test::TemporaryFolder folder("choices");
  MeasuredChoice choice(folder.path() / "choices.json");
  Clock clock;
  const MeasuredChoice::Way broken{"broken", [] { throw std::runtime_error("no such kernel"); }};
  CHECK(clock.measure(choice, {clock.way("a", 1e-3), broken, clock.way("c", 1e-4)}) == "c");
  CHECK_THROWS_AS(clock.measure(choice, {broken, clock.way("a", 1e-3)}, "other"),
                  std::runtime_error);
  CHECK(choice.known("card", "other").empty());
}

TEST_CASE("what memory did not suffice for is no lasting choice") {
  test::TemporaryFolder folder("choices");
  const auto file = folder.path() / "choices.json";
  MeasuredChoice choice(file);
  Clock clock;
  const MeasuredChoice::Way full{"full", [] { throw std::bad_alloc(); }};
  CHECK(clock.measure(choice, {clock.way("a", 1e-3), full}) == "a");
  CHECK(choice.known("card", "shape") == "a");
  CHECK(MeasuredChoice(file).known("card", "shape").empty());
}

TEST_CASE("a choice that turns out not to work is given up in this process") {
  test::TemporaryFolder folder("choices");
  MeasuredChoice choice(folder.path() / "choices.json");
  Clock clock;
  clock.measure(choice, {clock.way("a", 1e-3), clock.way("b", 1e-4)});
  choice.settle_on("a", "card", "shape");
  CHECK(choice.known("card", "shape") == "a");
  CHECK(clock.measure(choice, {clock.way("b", 1e-4)}) == "a");
}

TEST_CASE("threads that meet a shape at once measure it once") {
  test::TemporaryFolder folder("choices");
  MeasuredChoice choice(folder.path() / "choices.json");
  std::atomic<int> runs{0};
  std::atomic<double> now{0};
  const auto measure = [&](const std::string& first) {
    return choice.measure(
        "card", "shape",
        {{first,
          [&] {
            ++runs;
            now = now + 1;
          }}},
        [] {}, [&] { return now.load(); });
  };
  std::string one, other;
  {
    std::jthread thread([&] { one = measure("one"); });
    other = measure("other");
  }
  CHECK(one == other);
  CHECK(runs == 2);
}

TEST_CASE("a file that is damaged or cannot be written costs only what was remembered") {
  test::TemporaryFolder folder("choices");
  Clock clock;
  SUBCASE("damaged") {
    for (const char* text : {"", "{", "[1]", R"({"card": {"shape": 3}})", R"({"card": "a"})"}) {
      const auto file = folder.path() / "choices.json";
      write_file(file, text);
      MeasuredChoice choice(file);
      CHECK(choice.known("card", "shape").empty());
      clock.measure(choice, {clock.way("a", 1e-3)});
      CHECK(MeasuredChoice(file).known("card", "shape") == "a");
    }
  }
  SUBCASE("not a folder") {
    write_file(folder.path() / "plain", "x");
    MeasuredChoice choice(folder.path() / "plain" / "choices.json");
    clock.measure(choice, {clock.way("a", 1e-3)});
    CHECK(choice.known("card", "shape") == "a");
  }
}
