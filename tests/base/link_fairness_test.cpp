// The link clock against fair sharing worked out in other ways, for many machines and loads.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "distorch/base/link_clock.h"

using namespace distorch;

namespace {

/// Seconds at which transfers over one link end, by keeping the fluid's books: while n flow, each
/// gets an n-th. `starts` ascending.
std::vector<double> ends_on_one_link(const std::vector<double>& starts,
                                     const std::vector<double>& bytes, double speed) {
  const auto count = starts.size();
  std::vector<double> left = bytes, ends(count, -1);
  double now = 0;
  for (std::size_t done = 0; done < count;) {
    std::vector<std::size_t> active;
    double until = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < count; ++i) {
      if (ends[i] >= 0) continue;
      if (starts[i] <= now)
        active.push_back(i);
      else
        until = std::min(until, starts[i]);
    }
    const auto share = speed / static_cast<double>(std::max<std::size_t>(1, active.size()));
    for (auto i : active) until = std::min(until, now + left[i] / share);
    for (auto i : active) {
      left[i] -= share * (until - now);
      if (left[i] <= 1e-6 * bytes[i]) ends[i] = until, ++done;
    }
    now = until;
  }
  return ends;
}

std::vector<double> drain(LinkClock& clock, std::size_t count) {
  std::vector<double> ends(count, -1);
  auto take = [&] {
    for (const auto& done : clock.take_completed())
      ends[static_cast<std::size_t>(done.transfer)] = done.at_s;
  };
  take();
  for (auto next = clock.next_completion_s(); next < LinkClock::kNever;
       next = clock.next_completion_s()) {
    clock.advance(next);
    take();
  }
  return ends;
}

}  // namespace

TEST_CASE("link clock: random transfers over one link end when the fluid's books say") {
  std::mt19937 random(11);
  auto number = [&](double from, double to) {
    return std::uniform_real_distribution<double>(from, to)(random);
  };
  for (int round = 0; round < 200; ++round) {
    const double speed = number(1e8, 1e10), latency = round % 2 ? number(0, 0.01) : 0;
    const auto count = std::size_t{1} + random() % 8;
    LinkClock clock({{"cpu", "cuda:0", speed, latency}}, {});
    std::vector<double> starts, bytes;
    double at = 0;
    for (std::size_t i = 0; i < count; ++i) {
      at += number(0, 0.05);
      bytes.push_back(std::floor(number(1e6, 3e8)));
      starts.push_back(at + latency);
      clock.start(clock.route("cpu", "cuda:0"), static_cast<std::int64_t>(bytes.back()), at);
    }
    auto wanted = ends_on_one_link(starts, bytes, speed);
    auto got = drain(clock, count);
    for (std::size_t i = 0; i < count; ++i)
      CHECK(got[i] == doctest::Approx(wanted[i]).epsilon(1e-6));
  }
}

TEST_CASE("link clock: rates at once are those of one rising level under every limit") {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    const int cards = 1 + static_cast<int>(random() % 5);
    std::vector<LinkSpec> links;
    for (int i = 0; i < cards; ++i)
      links.push_back({"cpu", "cuda:" + std::to_string(i), 1.0 + static_cast<double>(random() % 9),
                       0, true, "pcie"});
    const double root = 1.0 + static_cast<double>(random() % 20);
    LinkClock clock(links, {{"pcie", root}});
    std::vector<int> routes, card;
    std::vector<int> on_card(static_cast<std::size_t>(cards), 0);
    for (auto n = 1 + random() % 7; n > 0; --n) {
      card.push_back(static_cast<int>(random() % static_cast<unsigned>(cards)));
      ++on_card[static_cast<std::size_t>(card.back())];
      routes.push_back(clock.route("cpu", "cuda:" + std::to_string(card.back())));
    }
    // Each flow gets its share of its link, but no more than a level that all have in common.
    auto rate = [&](std::size_t flow, double level) {
      auto its = static_cast<std::size_t>(card[flow]);
      return std::min(level, links[its].bytes_per_s / on_card[its]);
    };
    auto total = [&](double level) {
      double sum = 0;
      for (std::size_t f = 0; f < routes.size(); ++f) sum += rate(f, level);
      return sum;
    };
    double low = 0, high = 100;
    for (int i = 0; i < 100; ++i) {
      auto middle = (low + high) / 2;
      (total(middle) <= root ? low : high) = middle;
    }
    auto got = clock.at_once(routes);
    for (std::size_t f = 0; f < routes.size(); ++f)
      CHECK(got[f] == doctest::Approx(rate(f, low)).epsilon(1e-9));
  }
}

TEST_CASE("link clock: the two ways of a full-duplex root are apart, of a half-duplex link not") {
  LinkClock clock({{"cpu", "cuda:0", 10, 0, true, "r"}, {"cpu", "cuda:1", 10, 0, false, "r"}},
                  {{"r", 12}});
  auto to0 = clock.route("cpu", "cuda:0"), from0 = clock.route("cuda:0", "cpu");
  auto to1 = clock.route("cpu", "cuda:1"), from1 = clock.route("cuda:1", "cpu");
  CHECK(clock.at_once({to0, from0}) == std::vector<double>{10, 10});
  CHECK(clock.at_once({to1, from1}) == std::vector<double>{5, 5});
  CHECK(clock.at_once({to0, to1}) == std::vector<double>{6, 6});
  CHECK(clock.at_once({to0, from1}) == std::vector<double>{10, 10});
  CHECK(clock.disjoint({to0, from0}));
  CHECK_FALSE(clock.disjoint({to1, from1}));
  CHECK_FALSE(clock.disjoint({to0, to1}));
  CHECK_FALSE(clock.disjoint({to0, to0}));
  CHECK(clock.disjoint({}));
}

TEST_CASE("link clock: a direct link is taken before a detour, the faster detour before a slower") {
  LinkClock direct({{"cuda:0", "cuda:1", 1}, {"cpu", "cuda:0", 9}, {"cpu", "cuda:1", 9}}, {});
  CHECK(direct.bytes_per_s(direct.route("cuda:1", "cuda:0")) == 1);
  LinkClock detours(
      {{"cpu", "cuda:0", 4}, {"cpu", "cuda:1", 3}, {"nic", "cuda:0", 8}, {"nic", "cuda:1", 5}}, {});
  CHECK(detours.bytes_per_s(detours.route("cuda:0", "cuda:1")) == 5);
  // Two links between the same devices: the faster one.
  LinkClock two({{"cpu", "cuda:0", 4}, {"cuda:0", "cpu", 7}}, {});
  CHECK(two.bytes_per_s(two.route("cpu", "cuda:0")) == 7);
  // A detour that crosses one root in one direction twice pays it twice.
  LinkClock twice({{"cuda:0", "cpu", 10, 0, true, "r"}, {"cpu", "cuda:1", 10, 0, true, "r"}},
                  {{"r", 8}});
  CHECK(twice.bytes_per_s(twice.route("cuda:0", "cuda:1")) == 4);
  CHECK(two.route("cpu", "cpu") == -1);
}

TEST_CASE("link clock: the least time is the busiest part's") {
  LinkClock clock({{"cpu", "cuda:0", 10, 0, true, "r"}, {"cpu", "cuda:1", 5, 0, false, "r"}},
                  {{"r", 12}});
  auto to0 = clock.route("cpu", "cuda:0"), to1 = clock.route("cpu", "cuda:1");
  auto from1 = clock.route("cuda:1", "cpu");
  CHECK(clock.least_seconds({{to0, 20}}) == 2);
  CHECK(clock.least_seconds({{to0, 20}, {to1, 28}}) == doctest::Approx(5.6));  // its own link
  CHECK(clock.least_seconds({{to0, 50}, {to1, 22}}) == 6);                     // the root
  CHECK(clock.least_seconds({{to1, 10}, {from1, 15}}) == 5);  // both ways of a half-duplex link
  CHECK(clock.least_seconds({}) == 0);
}

TEST_CASE("link clock: time never goes back, events come before completions") {
  LinkClock clock({{"cpu", "cuda:0", 100, 0.5}}, {});
  auto route = clock.route("cpu", "cuda:0");
  clock.start(route, 100, 2.0);
  CHECK(clock.next_event_s() == doctest::Approx(2.5));
  CHECK(clock.next_completion_s() == doctest::Approx(3.5));
  clock.advance(2.5);
  CHECK(clock.next_event_s() == doctest::Approx(3.5));
  // A start in the past counts from now on.
  clock.start(route, 0, 1.0);
  CHECK(clock.now() == doctest::Approx(2.5));
  auto ends = drain(clock, 2);
  CHECK(ends[1] == doctest::Approx(3.0));
  CHECK(ends[0] == doctest::Approx(3.5));
  std::vector<LinkClock::Completion> none{{1, 1, 1}};
  clock.take_completed(none);
  CHECK(none.empty());
}
