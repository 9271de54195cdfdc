#pragma once
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace distorch {

/// A connection between two devices, usable in both directions.
struct LinkSpec {
  std::string from, to;     // device names: "cpu", "cuda:0", "disk"
  double bytes_per_s = 0;   // one direction
  double latency_s = 0;     // before the first byte of every transfer
  bool full_duplex = true;  // false: both directions together share bytes_per_s
  std::string root;         // shared root complex or switch; empty: the link shares with nobody
};

/// What all links of one root complex carry together, in each direction ("from" to "to" as the link
/// states it, and back, counted apart).
struct RootSpec {
  std::string name;
  double bytes_per_s = 0;
};

/// Transfers over links, as a fluid: every transfer first waits its latency, then flows; at each
/// moment the flowing transfers share every direction, half-duplex link and root by max-min
/// fairness. Time is virtual, in seconds, and only moves forward. Pure arithmetic: the planner's
/// timeline and the simulated accelerator both stand on it, so they agree.
///
/// A route is one link, or two links met in the middle ("cuda:1" to "cuda:0" through "cpu"): bytes
/// then pass both at once. Order on a stream is the caller's affair: start a transfer when its
/// stream is free.
class LinkClock {
 public:
  static constexpr double kNever = std::numeric_limits<double>::infinity();

  LinkClock(std::vector<LinkSpec> links, std::vector<RootSpec> roots);

  /// The route between two devices: the direct link, else the fastest pair of links through one
  /// other device. -1 where there is none. The same pair always gives the same number.
  int route(std::string_view from, std::string_view to);
  /// bytes/s that the route carries when nothing else moves.
  double bytes_per_s(int route) const { return routes_[route].alone; }
  double latency_s(int route) const { return routes_[route].latency; }

  /// Starts a transfer at `at_s` (not before now()); returns its number, counted from 0 since the
  /// last reset().
  int start(int route, std::int64_t bytes, double at_s);
  /// When the next transfer ends if none is started before then; kNever when nothing moves.
  double next_completion_s();
  /// The same or an earlier moment at which a latency ends. Cheaper: advance() to it, look at
  /// take_completed(), ask again.
  double next_event_s() {
    share();
    return next_change_s();
  }
  /// Moves the clock. Ends every transfer due until then; take_completed() tells which, in order of
  /// time.
  void advance(double to_s);
  double now() const { return now_; }

  struct Completion {
    int transfer;
    int route;
    double at_s;
  };
  /// The transfers that ended since the last call.
  std::vector<Completion> take_completed();
  /// The same into a vector that is kept: no allocation in a hot loop.
  void take_completed(std::vector<Completion>& out);

  /// True where no two of these routes share anything, so that each always runs at its own speed.
  bool disjoint(const std::vector<int>& routes) const;
  /// bytes/s of each of these routes when one transfer on each flows at once. Forgets transfers and
  /// time.
  std::vector<double> at_once(const std::vector<int>& routes);
  struct Load {
    int route;
    double bytes;
  };
  /// Seconds below which nobody can carry all of these: the busiest link, half-duplex pair or root.
  double least_seconds(const std::vector<Load>& loads) const;
  /// Forgets transfers and time, keeps links and routes.
  void reset();

 private:
  struct Route {
    std::string from, to;
    std::vector<int> resources;
    double alone = 0, latency = 0;
  };
  struct Flow {
    int transfer, route;
    double ready_s;  // latency over
    double left;     // bytes still to flow
    double rate;     // bytes/s now; 0 before ready_s
  };

  int add_route(std::string_view from, std::string_view to);
  void link_resources(int link, bool forward, std::vector<int>& out) const;
  void share();
  void fill(std::vector<double>& rates) const;
  void flow_until(double to_s);
  double next_change_s() const;

  std::vector<LinkSpec> links_;
  std::vector<RootSpec> roots_;
  // resources: 2 per link (forward, back), 1 per link (half duplex), 2 per root
  std::vector<double> capacity_;
  std::vector<Route> routes_;
  std::vector<Flow> flows_;
  std::vector<Completion> completed_;
  std::unordered_map<std::uint64_t, std::vector<double>> shared_;  // active routes -> rate of each
  double now_ = 0;
  int next_ = 0;
  bool stale_ = false;
};

}  // namespace distorch
