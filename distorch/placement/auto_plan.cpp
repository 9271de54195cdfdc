#include "distorch/placement/auto_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "distorch/base/error.h"
#include "distorch/base/units.h"
#include "distorch/placement/baselines.h"
#include "distorch/placement/parts.h"
#include "distorch/placement/spread.h"

namespace distorch::placement {
namespace {

using Bytes = std::int64_t;

constexpr std::int64_t kEffort = 8'000'000;  // of Timeline: some tens of milliseconds
constexpr int kSpreadTries = 80;             // clock runs of one even spread
constexpr int kPartTries = 400;              // clock runs of exchanges of parts
constexpr std::size_t kStarts = 3;           // best candidates that the local search begins from
// thresholds above which blocks stay resident, to make the slots smaller
constexpr std::size_t kSizes = 3;
constexpr double kBesideCopies = 1.15;  // times as long as alone blocks may compute there
constexpr std::size_t kReach = 4;       // the local search exchanges blocks this near
constexpr double kBetter = 1e-9;        // relative; ties go to the candidate found first

std::string human(Bytes bytes) { return human_bytes(static_cast<double>(bytes)); }

// --- the search

class Search {
 public:
  Search(const System& system, const Model& model, Bytes resident_limit)
      : system_(system),
        model_(model),
        resident_limit_(resident_limit),
        clock_(system, model),
        links_(system.links, system.roots),
        donors_(donors_of(system, links_, model.bytes())),
        pinned_(pinned_blocks(model)) {
    for (const Block& block : model.blocks) {
      double least = LinkClock::kNever;
      for (std::size_t d = 0; d < system.devices.size(); ++d) {
        double seconds = block.seconds_on(static_cast<int>(d));
        if (seconds >= 0) least = std::min(least, seconds);
      }
      floor_s_ += least;
    }
  }

  std::optional<Placement> run() {
    consider(std::vector<Home>(model_.blocks.size(), Home{system_.compute, How::Resident}), 2);
    if (has_parts(model_)) in_parts();
    for (double slots : {2., 1.5, 1., 3., 4., 6., 8., 12., 16.}) {
      for (const auto& set : donor_sets()) {
        if (!done()) stream_over(set, slots, {});
      }
    }
    if (!at_floor()) {
      for (const Named& other : baselines(system_, model_)) consider(other.placement);
      run_on_donors();
    }
    auto starts = found_;
    for (const Found& start : starts) {
      if (!done()) improve(start);
    }
    if (found_.empty()) return std::nullopt;
    return found_.front().placement;
  }
  double step_s() const { return found_.empty() ? LinkClock::kNever : found_.front().step_s; }

 private:
  struct Found {
    Placement placement;
    double step_s = 0;
  };

  bool at_floor() const {
    return !found_.empty() && found_.front().step_s <= floor_s_ * (1 + 1e-7);
  }
  bool done() const { return clock_.effort() + spread_effort_ > kEffort || at_floor(); }

  // Keeps the best few. True where it is the best so far.
  bool consider(Placement placement) {
    if (!fits(system_, model_, placement, resident_limit_)) return false;
    const double step = clock_.step_s(placement);
    if (step == LinkClock::kNever) return false;
    auto after = std::find_if(found_.begin(), found_.end(), [&](const Found& found) {
      return step < found.step_s * (1 - kBetter);
    });
    const bool best = after == found_.begin();
    if (after == found_.end() && found_.size() >= kStarts) return false;
    found_.insert(after, {std::move(placement), step});
    if (found_.size() > kStarts) found_.pop_back();
    return best;
  }
  bool consider(std::vector<Home> homes, double slots) {
    return consider(make_placement(system_, model_, std::move(homes), slots));
  }

  // The fastest one, two, ... and each alone.
  std::vector<std::vector<Donor>> donor_sets() const {
    std::vector<std::vector<Donor>> sets;
    for (std::size_t count = 1; count <= donors_.size(); ++count) {
      sets.emplace_back(donors_.begin(), donors_.begin() + static_cast<std::ptrdiff_t>(count));
    }
    for (std::size_t k = 1; k < donors_.size(); ++k) sets.push_back({donors_[k]});
    return sets;
  }

  // Blocks of `on_donor` run there; of the rest as much as possible stays resident and what must go
  // streams over the set, in proportion to what its links carry together. Large blocks may have to
  // stay so that slots are small.
  void stream_over(const std::vector<Donor>& set, double slots, const std::vector<Home>& on_donor) {
    Model model = model_;
    std::vector<Bytes> room;
    for (const Device& device : system_.devices) room.push_back(device.budget_bytes);
    for (std::size_t i = 0; i < on_donor.size(); ++i) {
      if (on_donor[i].how != How::OnDonor) continue;
      room[on_donor[i].device] -= model.blocks[i].bytes;
      model.blocks[i].bytes = 0;  // not there for the spread; its time still passes
      model.blocks[i].pinned = true;
    }
    std::set<Bytes, std::greater<>> sizes;
    for (std::size_t i = 0; i < pinned_.size(); ++i) {
      if (!pinned_[i] && !model.blocks[i].pinned) sizes.insert(model.blocks[i].bytes);
    }
    std::size_t tried = 0;
    for (Bytes largest : sizes) {
      if (tried++ == kSizes || done()) return;
      for (Block& block : model.blocks) block.pinned = block.pinned || block.bytes > largest;
      spread_over(set, slots, on_donor, model, room, largest);
    }
    if (sizes.empty() && !on_donor.empty()) consider(on_donor, slots);
  }

  void spread_over(const std::vector<Donor>& set, double slots, const std::vector<Home>& on_donor,
                   const Model& model, const std::vector<Bytes>& room, Bytes largest) {
    const Bytes total = model.bytes();
    const auto pinned = pinned_blocks(model);
    Bytes stay = 0;
    for (std::size_t i = 0; i < pinned.size(); ++i) stay += pinned[i] ? model.blocks[i].bytes : 0;
    const Bytes ring = static_cast<Bytes>(set.size()) * RingSize{0, slots, largest}.bytes();
    Bytes resident =
        std::min(system_.devices[system_.compute].budget_bytes - model_.activation_bytes - ring,
                 resident_limit_);
    if (resident < stay) return;
    resident = std::min(resident, total);
    Limits limits{std::vector<Bytes>(system_.devices.size(), 0), room};
    limits.at_most[system_.compute] = resident;
    limits.quotas[system_.compute] = resident;
    Bytes left = share_out(set, total - resident, room, limits.quotas);
    if (left > 0) return;
    auto homes = best_spread(system_, model, limits, slots, kSpreadTries, &spread_effort_).blocks;
    for (std::size_t i = 0; i < on_donor.size(); ++i) {
      if (on_donor[i].how == How::OnDonor) homes[i] = on_donor[i];
    }
    consider(std::move(homes), slots);
  }

  // In proportion to the links, no more than there is room; returns what found no room.
  Bytes share_out(const std::vector<Donor>& set, Bytes bytes, const std::vector<Bytes>& room,
                  std::vector<Bytes>& quotas) {
    std::vector<int> routes;
    for (const Donor& donor : set) routes.push_back(donor.route);
    auto speed = links_.at_once(routes);
    Bytes left = bytes;
    for (std::size_t round = 0; round <= set.size() && left > 0; ++round) {
      double sum = 0;
      for (std::size_t k = 0; k < set.size(); ++k)
        sum += quotas[set[k].device] < room[set[k].device] ? speed[k] : 0;
      if (sum <= 0) break;
      const Bytes now = left;
      for (std::size_t k = 0; k < set.size(); ++k) {
        const int d = set[k].device;
        if (quotas[d] >= room[d]) continue;
        auto part = static_cast<Bytes>(std::ceil(static_cast<double>(now) * (speed[k] / sum)));
        part = std::min({part, left, room[d] - quotas[d]});
        quotas[d] += part;
        left -= part;
      }
    }
    return left;
  }

  // A run of blocks at the head or the tail on one donor, the rest streamed if it must.
  void run_on_donors() {
    for (int d = 0; d < static_cast<int>(system_.devices.size()); ++d) {
      if (d == system_.compute) continue;
      const Bytes room = system_.devices[d].budget_bytes - model_.activation_bytes;
      std::size_t most = 0;
      for (bool tail : {true, false}) {
        most = 0;
        Bytes bytes = 0;
        for (std::size_t k = 0; k < model_.blocks.size(); ++k) {
          const Block& block = model_.blocks[tail ? model_.blocks.size() - 1 - k : k];
          bytes += block.bytes;
          if (bytes > room || block.seconds_on(d) < 0 || block.pinned) break;
          most = k + 1;
        }
        std::size_t last = 0;
        for (int part : {8, 4, 2, 6, 1, 3}) {
          std::size_t count = (most * static_cast<std::size_t>(part) + 7) / 8;
          if (count == 0 || count == last || done()) continue;
          last = count;
          std::vector<Home> homes(model_.blocks.size(), Home{system_.compute, How::Resident});
          for (std::size_t k = 0; k < count; ++k)
            homes[tail ? homes.size() - 1 - k : k] = {d, How::OnDonor};
          consider(homes, 2);
          if (!donors_.empty()) stream_over({donors_.front()}, 2, homes);
          if (donors_.size() > 1) stream_over(donors_, 2, homes);
        }
      }
    }
  }

  // Blocks that rest in part, streamed from the fastest donors, one, two, ...; the best of them with
  // parts exchanged.
  void in_parts() {
    for (double slots : {2., 3., 4., 6., 8.}) in_parts(slots);
    // Where there is no room for two slots.
    for (double slots : kSlimRings)
      if (found_.empty()) in_parts(slots);
    if (found_.empty()) in_parts(1);
    if (found_.empty() || at_floor()) return;
    slimmer_rings();
    auto best = found_.front().placement;
    improve_parts(system_, model_, resident_limit_, false, kPartTries, clock_, best);
    consider(std::move(best));
  }
  void in_parts(double slots) {
    for (std::size_t count = 1; count <= donors_.size() && !at_floor(); ++count) {
      if (spread_effort_ > kEffort / 2) break;
      const std::vector<Donor> set(donors_.begin(),
                                   donors_.begin() + static_cast<std::ptrdiff_t>(count));
      std::vector<Bytes> room;
      for (const Device& device : system_.devices) room.push_back(device.budget_bytes);
      part_plans(
          system_, model_, resident_limit_, slots,
          [&](Bytes streamed) -> std::optional<std::vector<Bytes>> {
            std::vector<Bytes> quotas(system_.devices.size(), 0);
            if (share_out(set, streamed, room, quotas) > 0) return std::nullopt;
            return quotas;
          },
          [&](Placement placement) { consider(std::move(placement)); }, spread_effort_);
    }
  }

  // The best one with less than two slots, and more weights in their stead. Blocks compute more slowly
  // beside copies than alone, and in a slim ring the next copy waits for that: it has to be the better
  // one then as well.
  void slimmer_rings() {
    Model slow = model_;
    for (Block& block : slow.blocks)
      for (double& seconds : block.seconds) seconds *= kBesideCopies;
    Timeline clock(system_, slow);
    const auto& wide = found_.front().placement;
    std::optional<Placement> best;
    double best_s = clock.step_s(wide);
    for (double slots : kSlimRings) {
      auto slim = filled_up(system_, model_, make_placement(system_, model_, wide.blocks, slots),
                            resident_limit_);
      if (!fits(system_, model_, slim, resident_limit_)) continue;
      const double step_s = clock.step_s(slim);
      if (step_s >= best_s) continue;
      best_s = step_s;
      best = std::move(slim);
    }
    spread_effort_ += clock.effort();
    if (best) consider(std::move(*best));
  }

  std::vector<Home> choices(std::size_t block) const {
    std::vector<Home> all = {{system_.compute, How::Resident}};
    for (const Donor& donor : donors_) all.push_back({donor.device, How::Streamed});
    for (int d = 0; d < static_cast<int>(system_.devices.size()); ++d) {
      if (d != system_.compute && model_.blocks[block].seconds_on(d) >= 0)
        all.push_back({d, How::OnDonor});
    }
    return all;
  }

  // Hill climbing: another home for one block or a short run of blocks, an exchange of two.
  void improve(const Found& start) {
    auto homes = start.placement.blocks;
    double step = start.step_s;
    double slots = 1;
    for (const RingSize& ring : start.placement.rings) slots = std::max(slots, ring.slots);
    const std::size_t n = homes.size();
    auto attempt = [&](std::vector<Home>& next) {
      auto placement = make_placement(system_, model_, next, slots);
      if (!fits(system_, model_, placement, resident_limit_)) return false;
      const double now = clock_.step_s(placement);
      if (!(now < step * (1 - kBetter))) return false;
      step = now;
      homes = next;
      return true;
    };
    bool better = true;
    while (better && !done()) {
      better = false;
      std::vector<Home> next = homes;
      for (std::size_t i = 0; i < n && !done(); ++i) {
        if (pinned_[i]) continue;
        for (const Home& choice : choices(i)) {
          for (std::size_t length : {std::size_t{1}, std::size_t{3}}) {
            if (i + length > n) continue;
            for (std::size_t k = i; k < i + length; ++k) {
              bool can = !pinned_[k] && (choice.how != How::OnDonor ||
                                         model_.blocks[k].seconds_on(choice.device) >= 0);
              if (can) next[k] = choice;
            }
            better = (next != homes && attempt(next)) || better;
            next = homes;
          }
        }
        for (std::size_t j = i + 1; j < std::min(n, i + 1 + kReach); ++j) {
          if (pinned_[j] || homes[i] == homes[j]) continue;
          std::swap(next[i], next[j]);
          bool can =
              next[i].how != How::OnDonor || model_.blocks[i].seconds_on(next[i].device) >= 0;
          can = can &&
                (next[j].how != How::OnDonor || model_.blocks[j].seconds_on(next[j].device) >= 0);
          better = (can && attempt(next)) || better;
          next = homes;
        }
      }
    }
    if (step < start.step_s) consider(std::move(homes), slots);
  }

  const System& system_;
  const Model& model_;
  Bytes resident_limit_;
  Timeline clock_;
  LinkClock links_;
  std::vector<Donor> donors_;
  std::vector<bool> pinned_;
  std::int64_t spread_effort_ = 0;
  double floor_s_ = 0;        // every block on its fastest device, nothing to wait for
  std::vector<Found> found_;  // best first
};

// Says why nothing fits: one block, the blocks that must stay, or all memory together.
[[noreturn]] void nothing_fits(const System& system, const Model& model) {
  const Device& compute = system.devices[system.compute];
  const auto pinned = pinned_blocks(model);
  Bytes stay = model.activation_bytes, all = 0;
  const Block* largest = nullptr;
  for (std::size_t i = 0; i < pinned.size(); ++i) {
    if (pinned[i]) stay += model.blocks[i].bytes;
    if (!pinned[i] && (!largest || model.blocks[i].bytes > largest->bytes))
      largest = &model.blocks[i];
  }
  for (const Device& device : system.devices) all += device.budget_bytes;
  std::string what;
  if (stay > compute.budget_bytes) {
    what = fmt::format(
        "'{}' needs {} there for activations and weights that must stay, {} may be used",
        model.name, human(stay), human(compute.budget_bytes));
  } else if (largest && largest->bytes > compute.budget_bytes - stay) {
    what = fmt::format(
        "block '{}' of '{}' has {}, of the {} that may be used {} are left; blocks up to {} would "
        "fit",
        largest->name, model.name, human(largest->bytes), human(compute.budget_bytes),
        human(compute.budget_bytes - stay), human(compute.budget_bytes - stay));
  } else {
    what = fmt::format(
        "'{}' has {} of weights; all devices that can reach it together may hold {}, {} of that "
        "here",
        model.name, human(model.bytes()), human(all), human(compute.budget_bytes - stay));
  }
  throw Error(ErrorKind::OutOfMemory, compute.name, what);
}

std::optional<Placement> try_plan(const System& system, const Model& model, Bytes resident_limit,
                                  double* step_s) {
  Search search(system, model, resident_limit);
  auto placement = search.run();
  if (step_s) *step_s = search.step_s();
  return placement;
}

}  // namespace

// --- several models

namespace {

// What every model may have on the compute device while all stay there side by side.
struct Shares {
  std::vector<Bytes> resident, ring;
  Bytes activations = 0;  // the largest: one model runs at a time
};

// Nothing where not even the smallest parts fit. What hides the transfers of the model with the
// most steps comes first, then whatever else there is room for. `slots`: of rings.
std::optional<Shares> share_residency(const System& system, const std::vector<ModelUse>& uses,
                                      int slots) {
  LinkClock clock(system.links, system.roots);
  Bytes all = 0;
  for (const ModelUse& use : uses) all += use.model.bytes();
  std::vector<int> routes;
  for (const Donor& donor : donors_of(system, clock, all)) routes.push_back(donor.route);
  double bytes_per_s = 0;
  for (double speed : clock.at_once(routes)) bytes_per_s += speed;
  const Bytes budget = system.devices[system.compute].budget_bytes;
  Shares shares;
  std::vector<Bytes> weights, stay, hidden;
  for (const ModelUse& use : uses) {
    const auto pinned = pinned_blocks(use.model);
    Bytes pinned_bytes = 0, largest = 0;
    double seconds = 0;
    for (std::size_t i = 0; i < pinned.size(); ++i) {
      const Block& block = use.model.blocks[i];
      seconds += block.seconds_on(system.compute);
      pinned_bytes += pinned[i] ? block.bytes : 0;
      largest = pinned[i] ? largest : std::max(largest, block.bytes);
    }
    weights.push_back(use.model.bytes());
    stay.push_back(pinned_bytes);
    hidden.push_back(std::max(
        pinned_bytes, weights.back() - static_cast<Bytes>(std::min(9e18, seconds * bytes_per_s))));
    shares.ring.push_back(slots * largest);
    shares.activations = std::max(shares.activations, use.model.activation_bytes);
  }
  const auto sum = [](const std::vector<Bytes>& bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), Bytes{0});
  };
  if (sum(weights) + shares.activations <= budget) {
    shares.resident = weights;
    shares.ring.assign(uses.size(), 0);
    return shares;
  }
  std::vector<std::size_t> order(uses.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return uses[a].steps > uses[b].steps; });
  // Whoever is resident as a whole needs no ring: its share goes to the others.
  for (bool again = true; again;) {
    again = false;
    shares.resident = stay;
    Bytes left = budget - shares.activations - sum(stay) - sum(shares.ring);
    if (left < 0) return std::nullopt;
    for (const auto* goal : {&hidden, &weights}) {
      for (std::size_t m : order) {
        Bytes more = std::clamp<Bytes>((*goal)[m] - shares.resident[m], 0, left);
        shares.resident[m] += more;
        left -= more;
      }
    }
    for (std::size_t m = 0; m < uses.size(); ++m) {
      if (shares.resident[m] < weights[m] || shares.ring[m] == 0) continue;
      shares.ring[m] = 0;
      again = true;
    }
  }
  return shares;
}

std::optional<AutoPlan> side_by_side(const System& system, const std::vector<ModelUse>& uses,
                                     int slots) {
  auto shares = share_residency(system, uses, slots);
  if (!shares) return std::nullopt;
  AutoPlan plan;
  System now = system;
  for (std::size_t m = 0; m < uses.size(); ++m) {
    Bytes others = 0;
    for (std::size_t k = 0; k < uses.size(); ++k)
      others += k == m ? 0 : shares->resident[k] + shares->ring[k];
    now.devices[system.compute].budget_bytes = system.devices[system.compute].budget_bytes - others;
    double step = 0;
    auto model = uses[m].model;
    model.activation_bytes = shares->activations;
    // A ring smaller than its share leaves the rest to weights.
    auto placement = try_plan(now, model, shares->resident[m] + shares->ring[m], &step);
    if (!placement) return std::nullopt;
    placement->activation_bytes = uses[m].model.activation_bytes;
    shares->resident[m] = placement->bytes[system.compute];
    shares->ring[m] = placement->ring_bytes();
    for (std::size_t d = 0; d < now.devices.size(); ++d) {
      if (static_cast<int>(d) != system.compute) now.devices[d].budget_bytes -= placement->bytes[d];
    }
    plan.total_s += uses[m].steps * step;
    plan.placements.push_back(std::move(*placement));
  }
  return plan;
}

std::optional<AutoPlan> side_by_side(const System& system, const std::vector<ModelUse>& uses) {
  for (int slots : {2, 1}) {
    if (auto plan = side_by_side(system, uses, slots)) return plan;
  }
  return std::nullopt;
}

// Each model has the device for itself; its resident part comes over the fastest link when its turn
// comes.
AutoPlan one_by_one(const System& system, const std::vector<ModelUse>& uses) {
  LinkClock clock(system.links, system.roots);
  const auto donors = donors_of(system, clock, 0);  // the fastest counts
  AutoPlan plan;
  plan.kept = false;
  for (const ModelUse& use : uses) {
    double step = 0;
    auto placement =
        try_plan(system, use.model, system.devices[system.compute].budget_bytes, &step);
    if (!placement) nothing_fits(system, use.model);
    const double load = donors.empty() ? 0
                                       : static_cast<double>(placement->bytes[system.compute]) /
                                             donors.front().bytes_per_s;
    plan.total_s += use.steps * step + load;
    plan.placements.push_back(std::move(*placement));
  }
  return plan;
}

}  // namespace

namespace {

std::vector<ModelUse> with_seconds(const std::vector<ModelUse>& asked, int compute) {
  std::vector<ModelUse> uses;
  for (const ModelUse& use : asked) uses.push_back({with_seconds(use.model, compute), use.steps});
  return uses;
}

}  // namespace

std::optional<AutoPlan> plan_side_by_side(const System& asked_system,
                                          const std::vector<ModelUse>& uses) {
  const System system = reachable(asked_system);
  return side_by_side(system, with_seconds(uses, system.compute));
}

AutoPlan auto_plan(const System& asked_system, const std::vector<ModelUse>& asked_uses) {
  const System system = reachable(asked_system);
  const auto uses = with_seconds(asked_uses, system.compute);
  auto together = side_by_side(system, uses);
  if (together && uses.size() == 1) return *together;
  auto apart = one_by_one(system, uses);
  return together && together->total_s <= apart.total_s ? *together : apart;
}

Placement auto_plan(const System& asked_system, const Model& asked_model) {
  const System system = reachable(asked_system);
  const Model model = with_seconds(asked_model, system.compute);
  auto placement = try_plan(system, model, system.devices[system.compute].budget_bytes, nullptr);
  if (!placement) nothing_fits(system, model);
  return *placement;
}

}  // namespace distorch::placement
