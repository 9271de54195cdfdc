#include "distorch/base/link_clock.h"

#include <doctest/doctest.h>

#include "distorch/base/error.h"

using namespace distorch;

namespace {

// All completions until nothing moves, by transfer number.
std::vector<double> drain(LinkClock& clock, int count) {
  std::vector<double> ends(count, -1);
  for (double next = clock.next_completion_s(); next < LinkClock::kNever;
       next = clock.next_completion_s()) {
    clock.advance(next);
    for (auto& done : clock.take_completed()) ends[done.transfer] = done.at_s;
  }
  return ends;
}

}  // namespace

TEST_CASE("link clock: one transfer takes latency + bytes / bandwidth") {
  LinkClock clock({{"cpu", "cuda:0", 1e9, 0.25}}, {});
  clock.start(clock.route("cpu", "cuda:0"), 2'000'000'000, 1.0);
  CHECK(clock.next_completion_s() == doctest::Approx(3.25));
  CHECK(drain(clock, 1)[0] == doctest::Approx(3.25));
}

TEST_CASE("link clock: two transfers one way share it, the late one pays less") {
  LinkClock clock({{"cpu", "cuda:0", 1e9}}, {});
  int route = clock.route("cpu", "cuda:0");
  clock.start(route, 1'000'000'000, 0);
  clock.start(route, 1'000'000'000, 0.5);
  auto ends = drain(clock, 2);
  CHECK(ends[0] == doctest::Approx(1.5));  // 0.5 s alone, then half speed for the other half
  CHECK(ends[1] == doctest::Approx(2.0));
}

TEST_CASE("link clock: directions are apart on a full-duplex link, shared on a half-duplex one") {
  for (bool full : {true, false}) {
    LinkClock clock({{"cpu", "cuda:0", 1e9, 0, full}}, {});
    clock.start(clock.route("cpu", "cuda:0"), 1'000'000'000, 0);
    clock.start(clock.route("cuda:0", "cpu"), 1'000'000'000, 0);
    for (double end : drain(clock, 2)) CHECK(end == doctest::Approx(full ? 1.0 : 2.0));
  }
}

TEST_CASE("link clock: a root is shared by max-min fairness: the slow link keeps its own speed") {
  LinkClock clock(
      {{"cpu", "cuda:0", 10e9, 0, true, "pcie"}, {"cpu", "cuda:1", 2e9, 0, true, "pcie"}},
      {{"pcie", 8e9}});
  clock.start(clock.route("cpu", "cuda:0"), 12'000'000'000, 0);
  clock.start(clock.route("cpu", "cuda:1"), 4'000'000'000, 0);
  auto ends = drain(clock, 2);
  CHECK(ends[0] == doctest::Approx(2.0));  // 6 GB/s: what the slow one leaves
  CHECK(ends[1] == doctest::Approx(2.0));
}

TEST_CASE("link clock: devices without a link meet in a third one") {
  LinkClock clock({{"cpu", "cuda:0", 8e9, 0.1}, {"cpu", "cuda:1", 4e9, 0.2}}, {});
  int route = clock.route("cuda:1", "cuda:0");
  REQUIRE(route >= 0);
  CHECK(clock.bytes_per_s(route) == 4e9);
  CHECK(clock.latency_s(route) == doctest::Approx(0.3));
  CHECK(clock.route("cuda:1", "cuda:0") == route);
  CHECK(clock.route("cuda:1", "disk") == -1);
}

TEST_CASE("link clock: a transfer of nothing costs its latency") {
  LinkClock clock({{"cpu", "cuda:0", 1e9, 0.5}}, {});
  clock.start(clock.route("cpu", "cuda:0"), 0, 0);
  CHECK(drain(clock, 1)[0] == doctest::Approx(0.5));
}

TEST_CASE("link clock: reset forgets transfers and time") {
  LinkClock clock({{"cpu", "cuda:0", 1e9}}, {});
  clock.start(clock.route("cpu", "cuda:0"), 1'000'000'000, 5);
  clock.reset();
  CHECK(clock.now() == 0);
  CHECK(clock.next_completion_s() == LinkClock::kNever);
  CHECK(clock.start(clock.route("cpu", "cuda:0"), 1'000'000'000, 0) == 0);
}

TEST_CASE("link clock: no transfer is lost whatever the mix (bytes / time is kept)") {
  LinkClock clock({{"cpu", "cuda:0", 3e9, 1e-3, false, "r"}, {"cpu", "cuda:1", 5e9, 0, true, "r"}},
                  {{"r", 4e9}});
  int a = clock.route("cpu", "cuda:0"), b = clock.route("cpu", "cuda:1"),
      back = clock.route("cuda:0", "cpu");
  double total = 0;
  for (int i = 0; i < 30; ++i) {
    std::int64_t bytes = 1'000'000 * (i * 7 % 11 + 1);
    clock.start(i % 3 == 0 ? a : i % 3 == 1 ? b : back, bytes, i * 1e-4);
    if (i % 3 != 2) total += static_cast<double>(bytes);
  }
  auto ends = drain(clock, 30);
  double last = 0;
  for (double end : ends) {
    CHECK(end > 0);
    last = std::max(last, end);
  }
  CHECK(last >= total / 4e9);  // the root cannot carry more
}

TEST_CASE("link clock: refuses what cannot be") {
  CHECK_THROWS_AS(LinkClock({{"cpu", "cuda:0", 0}}, {}), Error);
  CHECK_THROWS_WITH(LinkClock({{"cpu", "cuda:0", 1, 0, true, "x"}}, {}),
                    "link cpu - cuda:0: there is no root 'x'");
}
