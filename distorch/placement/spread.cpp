#include "distorch/placement/spread.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <tuple>

namespace distorch::placement {
namespace {

constexpr std::int64_t kTiny = 10000;  // a block below 1 / kTiny of the model stays on compute
constexpr double kAssumedLink = 12e9;  // bytes/s of a donor whose link nobody has measured
// bytes of weights computed per second where no seconds are known
constexpr double kAssumedCompute = 50e9;
constexpr double kShifts[] = {0.5, 0.0, 0.25, 0.75};
constexpr int kNeighbours = 3;  // exchanges look this far

Home home_on(const System& system, int device) {
  return {device, device == system.compute ? How::Resident : How::Streamed};
}

std::int64_t excess(std::int64_t got, std::int64_t most) { return got > most ? got - most : 0; }

// How far a device is from what is wanted; going over its limit weighs more than any quota.
double miss(const Limits& limits, int device, std::int64_t got) {
  return static_cast<double>(std::abs(got - limits.quotas[device])) +
         8.0 * static_cast<double>(excess(got, limits.at_most[device]));
}

}  // namespace

System with_links(System system) {
  LinkClock clock(system.links, system.roots);
  const std::string compute = system.devices[system.compute].name;
  for (const Device& device : system.devices) {
    if (device.name != compute && clock.route(device.name, compute) < 0) {
      system.links.push_back({device.name, compute, kAssumedLink});
    }
  }
  return system;
}

System reachable(const System& system) {
  return system.links.empty() ? with_links(system) : system;
}

Model with_seconds(Model model, int compute) {
  for (Block& block : model.blocks) {
    if (block.seconds_on(compute) >= 0) continue;
    block.seconds.resize(std::max(block.seconds.size(), static_cast<std::size_t>(compute) + 1), -1);
    block.seconds[compute] = static_cast<double>(block.bytes) / kAssumedCompute;
  }
  return model;
}

std::vector<double> durations(const System& system, const Model& model) {
  std::vector<double> seconds;
  double known = 0;
  for (const Block& block : model.blocks) {
    seconds.push_back(std::max(0.0, block.seconds_on(system.compute)));
    known += seconds.back();
  }
  if (known > 0) return seconds;
  for (std::size_t i = 0; i < seconds.size(); ++i)
    seconds[i] = static_cast<double>(model.blocks[i].bytes);
  return seconds;
}

std::vector<bool> pinned_blocks(const Model& model) {
  const std::int64_t total = model.bytes();
  std::vector<bool> pinned;
  for (const Block& block : model.blocks)
    pinned.push_back(block.pinned || block.bytes < total / kTiny);
  return pinned;
}

std::vector<std::int64_t> bytes_by_device(const System& system, const Model& model,
                                          const std::vector<Home>& homes) {
  std::vector<std::int64_t> bytes(system.devices.size(), 0);
  for (std::size_t i = 0; i < homes.size(); ++i) bytes[homes[i].device] += model.blocks[i].bytes;
  return bytes;
}

std::vector<int> by_name(const System& system) {
  std::vector<int> order(system.devices.size());
  std::iota(order.begin(), order.end(), 0);
  auto key = [&](int device) {
    const std::string& name = system.devices[device].name;
    auto colon = name.find(':');
    int index = colon == std::string::npos ? 0 : std::atoi(name.c_str() + colon + 1);
    return std::make_tuple(kind_of(name), name.substr(0, colon), index);
  };
  std::sort(order.begin(), order.end(), [&](int a, int b) { return key(a) < key(b); });
  return order;
}

std::vector<Home> spread_homes(const System& system, const Model& model, const Limits& limits,
                               double shift) {
  const auto pinned = pinned_blocks(model);
  const auto seconds = durations(system, model);
  const double total = std::max(1e-300, std::accumulate(seconds.begin(), seconds.end(), 0.0));
  std::vector<Home> homes(model.blocks.size(), home_on(system, system.compute));
  std::vector<double> got(system.devices.size(), 0);
  double passed = 0;
  for (std::size_t i = 0; i < homes.size(); ++i) {
    passed += seconds[i];
    if (pinned[i]) continue;
    const auto bytes = static_cast<double>(model.blocks[i].bytes);
    // Every donor should have received its quota in proportion to the time passed; the one furthest
    // behind takes the block.
    int behind = -1;
    double most = 0;
    for (int d = 0; d < static_cast<int>(system.devices.size()); ++d) {
      if (d == system.compute || limits.quotas[d] == 0) continue;
      double lag = (static_cast<double>(limits.quotas[d]) * (passed / total) - got[d]) / bytes;
      if (behind < 0 || lag > most) {
        behind = d;
        most = lag;
      }
    }
    if (behind < 0 || most < 1 - shift) continue;
    homes[i] = home_on(system, behind);
    got[behind] += bytes;
  }
  repair(system, model, limits, homes);
  return homes;
}

void repair(const System& system, const Model& model, const Limits& limits,
            std::vector<Home>& homes) {
  const auto pinned = pinned_blocks(model);
  auto got = bytes_by_device(system, model, homes);
  const int devices = static_cast<int>(system.devices.size());
  for (std::size_t round = 0; round < 4 * homes.size() + 4; ++round) {
    double best = -0.5;  // bytes are whole: anything better than no change
    std::size_t block = homes.size();
    int target = -1;
    // ties fall on different places
    const std::size_t start = round * 13 % std::max<std::size_t>(1, homes.size());
    for (std::size_t k = 0; k < homes.size(); ++k) {
      std::size_t i = (start + k) % homes.size();
      if (pinned[i] || model.blocks[i].bytes == 0) continue;
      const int from = homes[i].device;
      const std::int64_t bytes = model.blocks[i].bytes;
      const double without = miss(limits, from, got[from] - bytes) - miss(limits, from, got[from]);
      for (int to = 0; to < devices; ++to) {
        if (to == from || limits.quotas[to] == 0) continue;
        double change = without + miss(limits, to, got[to] + bytes) - miss(limits, to, got[to]);
        if (change < best) {
          best = change;
          block = i;
          target = to;
        }
      }
    }
    if (target < 0) return;
    got[homes[block].device] -= model.blocks[block].bytes;
    got[target] += model.blocks[block].bytes;
    homes[block] = home_on(system, target);
  }
}

namespace {

// Exchanges of two near blocks that keep every device as near to its quota as it is allowed to be.
class Exchange {
 public:
  Exchange(const System& system, const Model& model, const Limits& limits, double slots)
      : system_(system),
        model_(model),
        limits_(limits),
        slots_(slots),
        clock_(system, model),
        pinned_(pinned_blocks(model)) {
    for (std::size_t i = 0; i < pinned_.size(); ++i) {
      if (!pinned_[i]) largest_ = std::max(largest_, model.blocks[i].bytes);
    }
  }

  double step_s(const std::vector<Home>& homes) {
    ++runs_;
    return clock_.step_s(make_placement(system_, model_, homes, slots_));
  }
  double bound_s(const std::vector<Home>& homes) {
    return clock_.report(make_placement(system_, model_, homes, slots_), 0).bound_s;
  }
  std::int64_t effort() const { return clock_.effort(); }

  double improve(std::vector<Home>& homes, double step, int tries) {
    const double good = bound_s(homes) * (1 + 1e-6);
    auto got = bytes_by_device(system_, model_, homes);
    for (bool better = true; better && step > good;) {
      better = false;
      for (std::size_t i = 0; i < homes.size(); ++i) {
        for (std::size_t j = i + 1; j < std::min(homes.size(), i + 1 + kNeighbours); ++j) {
          if (runs_ >= tries) return step;
          if (pinned_[i] || pinned_[j] || homes[i] == homes[j] || !keeps(got, homes, i, j))
            continue;
          std::swap(homes[i], homes[j]);
          double now = step_s(homes);
          if (now < step * (1 - 1e-9)) {
            step = now;
            better = true;
            got = bytes_by_device(system_, model_, homes);
          } else {
            std::swap(homes[i], homes[j]);
          }
        }
      }
    }
    return step;
  }

 private:
  bool keeps(const std::vector<std::int64_t>& got, const std::vector<Home>& homes, std::size_t i,
             std::size_t j) const {
    // what i's device gains
    const std::int64_t moved = model_.blocks[j].bytes - model_.blocks[i].bytes;
    if (moved == 0) return true;
    auto fits = [&](int device, std::int64_t now) {
      return std::abs(now - limits_.quotas[device]) <= largest_ && now <= limits_.at_most[device];
    };
    return fits(homes[i].device, got[homes[i].device] + moved) &&
           fits(homes[j].device, got[homes[j].device] - moved);
  }

  const System& system_;
  const Model& model_;
  const Limits& limits_;
  double slots_;
  Timeline clock_;
  std::vector<bool> pinned_;
  std::int64_t largest_ = 0;
  int runs_ = 0;
};

}  // namespace

Placement best_spread(const System& system, const Model& model, const Limits& limits, double slots,
                      int tries, std::int64_t* effort) {
  Exchange exchange(system, model, limits, slots);
  std::vector<Home> best;
  double best_s = 0;
  for (double shift : kShifts) {
    auto homes = spread_homes(system, model, limits, shift);
    double step = exchange.step_s(homes);
    if (best.empty() || step < best_s) {
      best_s = step;
      best = std::move(homes);
    }
  }
  exchange.improve(best, best_s, tries);
  if (effort) *effort += exchange.effort();
  return make_placement(system, model, std::move(best), slots);
}

std::vector<Home> tail_homes(const System& system, const Model& model,
                             const std::vector<std::int64_t>& quotas) {
  const auto pinned = pinned_blocks(model);
  auto left = quotas;
  for (std::size_t i = 0; i < pinned.size(); ++i) {
    if (pinned[i]) left[system.compute] -= model.blocks[i].bytes;
  }
  std::vector<Home> homes(model.blocks.size(), home_on(system, system.compute));
  const auto order = by_name(system);
  for (std::size_t i = homes.size(); i-- > 0;) {
    if (pinned[i]) continue;
    auto room = std::find_if(order.begin(), order.end(), [&](int d) {
      return left[d] >= model.blocks[i].bytes && left[d] > 0;
    });
    if (room == order.end()) continue;
    left[*room] -= model.blocks[i].bytes;
    homes[i] = home_on(system, *room);
  }
  return homes;
}

}  // namespace distorch::placement
