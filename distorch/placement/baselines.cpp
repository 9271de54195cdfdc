#include "distorch/placement/baselines.h"

#include <algorithm>
#include <optional>

#include "distorch/placement/spread.h"

namespace distorch::placement {

using Bytes = std::int64_t;

bool fits(const System& system, const Model& model, const Placement& placement,
          Bytes resident_limit) {
  if (placement.bytes[system.compute] > resident_limit) return false;
  if (placement.peak_bytes() > system.devices[system.compute].budget_bytes) return false;
  std::vector<Bytes> used = placement.bytes;
  std::vector<bool> runs(used.size(), false);
  for (const Home& home : placement.blocks) {
    if (home.how == How::OnDonor) runs[home.device] = true;
  }
  for (std::size_t d = 0; d < used.size(); ++d) {
    if (static_cast<int>(d) == system.compute) continue;
    if (used[d] + (runs[d] ? model.activation_bytes : 0) > system.devices[d].budget_bytes)
      return false;
  }
  return true;
}

std::vector<Donor> donors_of(const System& system, LinkClock& clock, Bytes bytes) {
  std::vector<Donor> donors;
  const int ram = system.find("cpu");
  const auto& compute = system.devices[system.compute].name;
  const bool ram_will_do = ram >= 0 && ram != system.compute &&
                           system.devices[ram].budget_bytes >= std::max<Bytes>(1, bytes) &&
                           clock.route("cpu", compute) >= 0;
  for (int d = 0; d < static_cast<int>(system.devices.size()); ++d) {
    if (d == system.compute || system.devices[d].budget_bytes <= 0) continue;
    if (ram_will_do && kind_of(system.devices[d].name) == DeviceKind::Disk) continue;
    int route = clock.route(system.devices[d].name, compute);
    if (route >= 0) donors.push_back({d, route, clock.bytes_per_s(route)});
  }
  std::stable_sort(donors.begin(), donors.end(),
                   [](const Donor& a, const Donor& b) { return a.bytes_per_s > b.bytes_per_s; });
  return donors;
}

namespace {
// -------------------------------------------------------------------------------------------

// Rests `bytes` on the donors in turn, as much as each may hold; what is over stays at the end.
class Filler {
 public:
  Filler(const System& system, const std::vector<Donor>& donors) : donors_(donors) {
    for (const Device& device : system.devices) left_.push_back(device.budget_bytes);
  }
  // The first donor with room; -1 where there is none.
  int take(Bytes bytes) {
    for (const Donor& donor : donors_) {
      if (left_[donor.device] < bytes) continue;
      left_[donor.device] -= bytes;
      return donor.device;
    }
    return -1;
  }

 private:
  const std::vector<Donor>& donors_;
  std::vector<Bytes> left_;
};

// The blocks marked true streamed from the fastest donors with room, the others resident.
std::optional<std::vector<Home>> stream_marked(const System& system, const Model& model,
                                               const std::vector<Donor>& donors,
                                               const std::vector<bool>& marked) {
  Filler filler(system, donors);
  std::vector<Home> homes;
  for (std::size_t i = 0; i < marked.size(); ++i) {
    if (!marked[i]) {
      homes.push_back({system.compute, How::Resident});
      continue;
    }
    int device = filler.take(model.blocks[i].bytes);
    if (device < 0) return std::nullopt;
    homes.push_back({device, How::Streamed});
  }
  return homes;
}

// Offloads as few blocks as possible: `mark(count)` says which when that many go.
template <typename Mark>
std::optional<Placement> fewest(const System& system, const Model& model, Mark mark) {
  for (std::size_t count = 0; count <= model.blocks.size(); ++count) {
    for (int slots : {2, 1}) {
      std::optional<std::vector<Home>> homes = mark(count);
      if (!homes) continue;
      auto placement = make_placement(system, model, *homes, slots);
      if (fits(system, model, placement, system.devices[system.compute].budget_bytes))
        return placement;
    }
  }
  return std::nullopt;
}

// Layers in order over the devices, accelerators by name, each run where it rests; RAM streams
// where it cannot compute.
std::optional<std::vector<Home>> layer_split(const System& system, const Model& model,
                                             const std::vector<bool>& pinned) {
  std::vector<Bytes> left;
  for (const Device& device : system.devices)
    left.push_back(device.budget_bytes - model.activation_bytes);
  auto order = by_name(system);
  auto compute = std::find(order.begin(), order.end(), system.compute);
  std::rotate(order.begin(), compute, compute + 1);
  for (std::size_t i = 0; i < pinned.size(); ++i) {
    if (pinned[i]) left[system.compute] -= model.blocks[i].bytes;
  }
  std::vector<Home> homes;
  std::size_t at = 0;
  for (std::size_t i = 0; i < pinned.size(); ++i) {
    const Block& block = model.blocks[i];
    if (pinned[i]) {
      homes.push_back({system.compute, How::Resident});
      continue;
    }
    while (at < order.size() && left[order[at]] < block.bytes) ++at;
    if (at == order.size()) return std::nullopt;
    const int device = order[at];
    left[device] -= block.bytes;
    const bool runs = block.seconds_on(device) >= 0;
    homes.push_back({device, device == system.compute ? How::Resident
                             : runs                   ? How::OnDonor
                                                      : How::Streamed});
  }
  return homes;
}

}  // namespace

std::vector<Named> baselines(const System& asked_system, const Model& asked_model) {
  const System system = reachable(asked_system);
  const Model model = with_seconds(asked_model, system.compute);
  LinkClock clock(system.links, system.roots);
  const auto donors = donors_of(system, clock, model.bytes());
  const auto pinned = pinned_blocks(model);
  std::vector<std::size_t> movable;
  for (std::size_t i = 0; i < pinned.size(); ++i) {
    if (!pinned[i]) movable.push_back(i);
  }
  const auto mark = [&](auto pick) {
    return [&, pick](std::size_t count) -> std::optional<std::vector<Home>> {
      if (count > movable.size()) return std::nullopt;
      std::vector<bool> marked(pinned.size(), false);
      for (std::size_t k = 0; k < movable.size(); ++k) marked[movable[k]] = pick(k, count);
      return stream_marked(system, model, donors, marked);
    };
  };
  const std::size_t n = movable.size();
  std::vector<Named> found;
  auto add = [&](const char* name, std::optional<Placement> placement) {
    if (placement) found.push_back({name, std::move(*placement)});
  };
  add("everything streamed", fewest(system, model, [&](std::size_t count) {
        return count == n ? mark([](auto, auto) { return true; })(n) : std::nullopt;
      }));
  add("tail", fewest(system, model,
                     mark([n](std::size_t k, std::size_t count) { return k >= n - count; })));
  add("even spread", fewest(system, model, mark([n](std::size_t k, std::size_t count) {
                              return (k + 1) * count / n > k * count / n;
                            })));
  for (double room :
       {1.0, 0.9, 0.75, 0.5}) {  // a split whose rest streams from RAM needs room for the ring
    System less = system;
    less.devices[system.compute].budget_bytes =
        static_cast<Bytes>(static_cast<double>(less.devices[system.compute].budget_bytes) * room);
    auto homes = layer_split(less, model, pinned);
    if (!homes) continue;
    auto placement = make_placement(system, model, *homes, 2);
    if (!fits(system, model, placement, system.devices[system.compute].budget_bytes)) continue;
    add("layer split", placement);
    break;
  }
  return found;
}

}  // namespace distorch::placement
