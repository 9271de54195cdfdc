#include "distorch/base/link_clock.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "distorch/base/error.h"

namespace distorch {
namespace {

constexpr int kPerLink = 3;  // forward, back, both
constexpr int kPerRoot = 2;  // forward, back
constexpr double kHalfByte = 0.5;

}  // namespace

LinkClock::LinkClock(std::vector<LinkSpec> links, std::vector<RootSpec> roots)
    : links_(std::move(links)), roots_(std::move(roots)) {
  for (const LinkSpec& link : links_) {
    if (!(link.bytes_per_s > 0) || !(link.latency_s >= 0)) {
      throw Error(ErrorKind::Usage, fmt::format("link {} - {}", link.from, link.to),
                  "needs a bandwidth above 0 and a latency of 0 or more");
    }
    double both = link.full_duplex ? kNever : link.bytes_per_s;
    capacity_.insert(capacity_.end(), {link.bytes_per_s, link.bytes_per_s, both});
    bool known = link.root.empty() || std::any_of(roots_.begin(), roots_.end(), [&](auto& root) {
                   return root.name == link.root;
                 });
    if (!known) {
      throw Error(ErrorKind::Usage, fmt::format("link {} - {}", link.from, link.to),
                  fmt::format("there is no root '{}'", link.root));
    }
  }
  for (const RootSpec& root : roots_) {
    if (!(root.bytes_per_s > 0)) {
      throw Error(ErrorKind::Usage, "root " + root.name, "needs a bandwidth above 0");
    }
    capacity_.insert(capacity_.end(), {root.bytes_per_s, root.bytes_per_s});
  }
}

void LinkClock::link_resources(int link, bool forward, std::vector<int>& out) const {
  const LinkSpec& spec = links_[link];
  out.push_back(link * kPerLink + (forward ? 0 : 1));
  if (!spec.full_duplex) out.push_back(link * kPerLink + 2);
  for (std::size_t r = 0; r < roots_.size(); ++r) {
    if (roots_[r].name == spec.root) {
      out.push_back(static_cast<int>(links_.size() * kPerLink + r * kPerRoot + (forward ? 0 : 1)));
    }
  }
}

int LinkClock::route(std::string_view from, std::string_view to) {
  for (std::size_t i = 0; i < routes_.size(); ++i) {
    if (routes_[i].from == from && routes_[i].to == to) return static_cast<int>(i);
  }
  return add_route(from, to);
}

int LinkClock::add_route(std::string_view from, std::string_view to) {
  auto joins = [&](const LinkSpec& link, std::string_view a, std::string_view b) {
    return (link.from == a && link.to == b) || (link.from == b && link.to == a);
  };
  // each: links and whether they are walked forward
  std::vector<std::vector<std::pair<int, bool>>> ways;
  for (int i = 0; i < static_cast<int>(links_.size()); ++i) {
    if (joins(links_[i], from, to)) ways.push_back({{i, links_[i].from == from}});
  }
  if (ways.empty() && from != to) {
    for (int i = 0; i < static_cast<int>(links_.size()); ++i) {
      bool forward = links_[i].from == from;
      if (!forward && links_[i].to != from) continue;
      const std::string& middle = forward ? links_[i].to : links_[i].from;
      for (int j = 0; j < static_cast<int>(links_.size()); ++j) {
        if (j != i && joins(links_[j], middle, to)) {
          ways.push_back({{i, forward}, {j, links_[j].from == middle}});
        }
      }
    }
  }
  Route best;
  for (const auto& way : ways) {
    Route route{std::string(from), std::string(to), {}, kNever, 0};
    for (auto [link, forward] : way) {
      link_resources(link, forward, route.resources);
      route.latency += links_[link].latency_s;
    }
    // A way that crosses one resource twice pays it twice; rare, and the fluid below treats it so.
    for (int resource : route.resources) {
      auto uses = std::count(route.resources.begin(), route.resources.end(), resource);
      route.alone = std::min(route.alone, capacity_[resource] / static_cast<double>(uses));
    }
    if (route.alone > best.alone) best = route;
  }
  if (best.alone == 0) return -1;
  routes_.push_back(std::move(best));
  return static_cast<int>(routes_.size()) - 1;
}

int LinkClock::start(int route, std::int64_t bytes, double at_s) {
  advance(std::max(at_s, now_));
  double ready = now_ + routes_[route].latency;
  flows_.push_back({next_, route, ready, static_cast<double>(bytes), 0});
  stale_ = true;
  return next_++;
}

// Max-min fairness: raise all rates together; whatever resource is exhausted first fixes its flows;
// go on with the rest.
void LinkClock::fill(std::vector<double>& rates) const {
  std::vector<double> left = capacity_;
  std::vector<double> load(capacity_.size(), 0);
  std::vector<int> open;
  rates.assign(flows_.size(), 0);
  for (int f = 0; f < static_cast<int>(flows_.size()); ++f) {
    if (flows_[f].ready_s > now_) continue;
    open.push_back(f);
    for (int resource : routes_[flows_[f].route].resources) load[resource] += 1;
  }
  while (!open.empty()) {
    int tight = -1;
    double share = kNever;
    for (int r = 0; r < static_cast<int>(left.size()); ++r) {
      if (load[r] > 0 && left[r] / load[r] < share) {
        share = left[r] / load[r];
        tight = r;
      }
    }
    std::vector<int> still;
    for (int f : open) {
      const auto& resources = routes_[flows_[f].route].resources;
      if (std::find(resources.begin(), resources.end(), tight) == resources.end()) {
        still.push_back(f);
        continue;
      }
      rates[f] = share;
      for (int resource : resources) {
        left[resource] = std::max(0.0, left[resource] - share);
        load[resource] -= 1;
      }
    }
    open = std::move(still);
  }
}

void LinkClock::share() {
  if (!stale_) return;
  stale_ = false;
  // The rates depend only on which routes flow: remembered, because planners ask for the same few
  // again and again.
  std::uint64_t key = 0;
  bool simple = routes_.size() <= 64;
  for (const Flow& flow : flows_) {
    if (flow.ready_s > now_) continue;
    std::uint64_t bit = std::uint64_t{1} << (flow.route & 63);
    simple = simple && !(key & bit);
    key |= bit;
  }
  if (!simple) {
    std::vector<double> rates;
    fill(rates);
    for (std::size_t f = 0; f < flows_.size(); ++f) flows_[f].rate = rates[f];
    return;
  }
  std::vector<double>& by_route = shared_[key];
  if (by_route.empty()) {
    std::vector<double> rates;
    fill(rates);
    by_route.assign(64, 0);
    for (std::size_t f = 0; f < flows_.size(); ++f) {
      if (flows_[f].ready_s <= now_) by_route[flows_[f].route] = rates[f];
    }
  }
  for (Flow& flow : flows_) flow.rate = flow.ready_s > now_ ? 0 : by_route[flow.route];
}

double LinkClock::next_change_s() const {
  double next = kNever;
  for (const Flow& flow : flows_) {
    double change = flow.ready_s > now_ ? flow.ready_s : now_ + flow.left / flow.rate;
    next = std::min(next, change);
  }
  return next;
}

void LinkClock::flow_until(double to_s) {
  double passed = to_s - now_;
  for (Flow& flow : flows_) {
    bool waiting = flow.ready_s > now_;
    if (waiting && flow.ready_s <= to_s) stale_ = true;
    if (!waiting) flow.left -= flow.rate * passed;
  }
  now_ = to_s;
  for (std::size_t f = 0; f < flows_.size();) {
    // A rest below half a byte, or too small to move the clock, is rounding.
    const Flow& flow = flows_[f];
    bool done = flow.ready_s <= now_ &&
                (flow.left < kHalfByte || (flow.rate > 0 && now_ + flow.left / flow.rate <= now_));
    if (!done) {
      ++f;
      continue;
    }
    completed_.push_back({flow.transfer, flow.route, now_});
    flows_.erase(flows_.begin() + static_cast<std::ptrdiff_t>(f));
    stale_ = true;
  }
}

void LinkClock::advance(double to_s) {
  while (!flows_.empty()) {
    share();
    double next = next_change_s();
    if (next > to_s) break;
    flow_until(std::max(next, now_));
  }
  if (to_s > now_ && to_s < kNever) {
    share();
    flow_until(to_s);
  }
}

double LinkClock::next_completion_s() {
  share();
  bool steady = std::all_of(flows_.begin(), flows_.end(),
                            [&](const Flow& flow) { return flow.ready_s <= now_; });
  if (steady) return next_change_s();  // the first to end ends before any rate changes
  LinkClock ahead = *this;
  ahead.completed_.clear();
  while (!ahead.flows_.empty() && ahead.completed_.empty()) {
    ahead.share();
    ahead.flow_until(ahead.next_change_s());
  }
  return ahead.completed_.empty() ? kNever : ahead.completed_.front().at_s;
}

std::vector<LinkClock::Completion> LinkClock::take_completed() {
  std::vector<Completion> done;
  done.swap(completed_);
  return done;
}

void LinkClock::take_completed(std::vector<Completion>& out) {
  out.clear();
  out.swap(completed_);
}

bool LinkClock::disjoint(const std::vector<int>& routes) const {
  std::vector<int> uses(capacity_.size(), 0);
  for (int route : routes) {
    for (int resource : routes_[route].resources) {
      if (capacity_[resource] < kNever && ++uses[resource] > 1) return false;
    }
  }
  return true;
}

std::vector<double> LinkClock::at_once(const std::vector<int>& routes) {
  reset();
  for (int route : routes) flows_.push_back({next_++, route, 0, 1, 0});
  std::vector<double> rates;
  fill(rates);
  reset();
  return rates;
}

double LinkClock::least_seconds(const std::vector<Load>& loads) const {
  std::vector<double> bytes(capacity_.size(), 0);
  for (const Load& load : loads) {
    for (int resource : routes_[load.route].resources) bytes[resource] += load.bytes;
  }
  double least = 0;
  for (std::size_t r = 0; r < bytes.size(); ++r) least = std::max(least, bytes[r] / capacity_[r]);
  return least;
}

void LinkClock::reset() {
  flows_.clear();
  completed_.clear();
  now_ = 0;
  next_ = 0;
  stale_ = false;
}

}  // namespace distorch
