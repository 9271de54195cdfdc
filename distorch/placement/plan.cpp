#include "distorch/placement/plan.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/base/units.h"
#include "distorch/placement/parts.h"
#include "distorch/placement/spread.h"

namespace distorch::placement {
namespace {

constexpr int kTries = 1500;  // clock runs of one plan
constexpr int kMoreSlots[] = {3, 4, 6, 8, 10, 12, 14, 16};
constexpr double kPays = 1.003;  // more slots must make the step by so much shorter

using Bytes = std::int64_t;

// Hands out a model's bytes.
class Ledger {
 public:
  Ledger(const System& system, Bytes total) : quotas_(system.devices.size(), 0), left_(total) {}

  void give(int device, double asked) {
    Bytes bytes =
        asked >= static_cast<double>(left_) ? left_ : static_cast<Bytes>(std::llround(asked));
    quotas_[device] += bytes;
    left_ -= bytes;
  }
  void give_rest(int device) { give(device, static_cast<double>(left_)); }
  Bytes left() const { return left_; }
  const std::vector<Bytes>& quotas() const { return quotas_; }

 private:
  std::vector<Bytes> quotas_;
  Bytes left_;
};

std::vector<Bytes> share_quotas(const System& system, Bytes total,
                                const std::vector<Share>& shares) {
  Ledger ledger(system, total);
  const Unit unit = shares.front().unit;
  double sum = 0;
  int rest = -1;
  for (const Share& share : shares) {
    int device = system.at(share.device);
    if (share.takes_rest) rest = device;
    sum += share.amount;
  }
  if (unit == Unit::ModelPercent && rest >= 0 && sum > 100) {
    throw Error(ErrorKind::Usage, "allocation",
                fmt::format("asks for {}% of the model and the rest of it besides", sum));
  }
  if (unit == Unit::ModelPercent && rest < 0 && sum <= 0) {
    throw Error(ErrorKind::Usage, "allocation", "all shares are 0%");
  }
  for (const Share& share : shares) {
    if (share.takes_rest) continue;
    int device = system.at(share.device);
    switch (unit) {
      case Unit::Bytes: ledger.give(device, share.amount); break;
      case Unit::ModelPercent:
        ledger.give(device, share.amount / (rest < 0 ? sum : 100) * static_cast<double>(total));
        break;
      case Unit::DeviceFraction:
        ledger.give(device, share.amount * static_cast<double>(system.devices[device].total_bytes));
        break;
    }
  }
  if (rest < 0 && unit == Unit::Bytes) rest = system.find("cpu");
  if (rest < 0 && unit == Unit::ModelPercent) {  // rounding: to the last device that takes part
    for (const Share& share : shares) rest = share.amount > 0 ? system.at(share.device) : rest;
  }
  ledger.give_rest(rest < 0 ? system.compute : rest);
  return ledger.quotas();
}

std::vector<Bytes> virtual_quotas(const System& system, Bytes total, const Allocation& allocation) {
  Ledger ledger(system, total);
  const double wanted = std::min(allocation.virtual_bytes, static_cast<double>(total));
  ledger.give(system.compute, static_cast<double>(total) - wanted);
  if (ledger.left() == 0) return ledger.quotas();
  auto donors = allocation.donors;
  if (donors.empty()) donors.push_back("cpu");
  Bytes offered = 0;
  for (const std::string& donor : donors) {
    int device = system.at(donor);
    if (device == system.compute) {  // lending to itself moves nothing
      ledger.give_rest(device);
      continue;
    }
    offered += system.devices[device].budget_bytes;
    ledger.give(device, static_cast<double>(system.devices[device].budget_bytes));
  }
  if (ledger.left() > 0) {
    throw Error(ErrorKind::OutOfMemory, fmt::format("{}", fmt::join(donors, ", ")),
                fmt::format("{} of virtual VRAM are asked for, the donors have {}",
                            human_bytes(wanted), human_bytes(static_cast<double>(offered))));
  }
  return ledger.quotas();
}

// Quotas that leave the pinned blocks where they stay: compute gets at least those, donors less in
// proportion.
std::vector<Bytes> around_pinned(const System& system, const Model& model,
                                 std::vector<Bytes> quotas) {
  const auto pinned = pinned_blocks(model);
  Bytes stay = 0;
  for (std::size_t i = 0; i < pinned.size(); ++i) stay += pinned[i] ? model.blocks[i].bytes : 0;
  const Bytes missing = stay - quotas[system.compute];
  if (missing <= 0) return quotas;
  const Bytes donors = model.bytes() - quotas[system.compute];
  Bytes to_take = missing;
  for (std::size_t d = 0; d < quotas.size(); ++d) {
    if (static_cast<int>(d) == system.compute) continue;
    auto cut = static_cast<Bytes>(
        std::llround(static_cast<double>(missing) *
                     (static_cast<double>(quotas[d]) / static_cast<double>(donors))));
    cut = std::min({cut, to_take, quotas[d]});
    quotas[d] -= cut;
    to_take -= cut;
  }
  for (Bytes& quota : quotas) {  // what rounding left
    Bytes cut = &quota == &quotas[system.compute] ? 0 : std::min(to_take, quota);
    quota -= cut;
    to_take -= cut;
  }
  quotas[system.compute] = stay;
  return quotas;
}

bool near(const Model& model, const std::vector<Bytes>& got, const std::vector<Bytes>& quotas) {
  Bytes largest = 0;
  for (const Block& block : model.blocks) largest = std::max(largest, block.bytes);
  for (std::size_t d = 0; d < got.size(); ++d) {
    if (std::abs(got[d] - quotas[d]) > largest) return false;
  }
  return true;
}

// What is asked for and what there is. `tried` is the placement that came nearest: its ring is the
// smallest possible.
[[noreturn]] void too_much(const System& system, const Placement& tried, Bytes asked) {
  const Device& device = system.devices[system.compute];
  auto human = [](Bytes bytes) { return human_bytes(static_cast<double>(bytes)); };
  const Bytes other = tried.ring_bytes() + tried.activation_bytes;
  throw Error(ErrorKind::OutOfMemory, device.name,
              fmt::format("{} are needed ({} of weights, {} of ring slots, {} of activations), {} "
                          "may be used; keep at most {} "
                          "of weights there",
                          human(asked + other), human(asked), human(tried.ring_bytes()),
                          human(tried.activation_bytes), human(device.budget_bytes),
                          human(std::max<Bytes>(0, device.budget_bytes - other))));
}

// Two slots are enough unless copies and compute take nearly the same time: then the lead that
// resident blocks give must be stored somewhere. More slots only where the budget has room and the
// clock says that they pay.
Placement with_more_slots(const System& system, const Model& model, const Limits& limits,
                          Placement placement) {
  Timeline clock(system, model);
  double step = clock.step_s(placement);
  const double bound = clock.report(placement, 0).bound_s;
  const Bytes budget = system.devices[system.compute].budget_bytes;
  const auto consider = [&](Placement next) {
    if (next.peak_bytes() > budget) return;
    const double now = clock.step_s(next);
    if (now * kPays >= step) return;
    step = now;
    placement = std::move(next);
  };
  for (int slots : kMoreSlots) {
    if (step <= bound * kPays) break;
    // The same blocks, or others: a search of its own may settle for more bytes over the link.
    auto same = make_placement(system, model, placement.blocks, slots);
    if (same.peak_bytes() > budget) break;
    consider(std::move(same));
    consider(best_spread(system, model, limits, slots, kTries));
  }
  return placement;
}

/// Every block at one place, within one block of the quotas; `tried`: what came nearest.
std::optional<Placement> whole_blocks(const System& system, const Model& model,
                                      const Limits& limits, Order order, Placement& tried) {
  const Bytes budget = system.devices[system.compute].budget_bytes;
  auto good = [&](const Placement& placement) {
    return placement.peak_bytes() <= budget &&
           (order == Order::Tail || near(model, placement.bytes, limits.quotas));
  };
  for (int slots : {2, 1}) {
    if (order == Order::Tail) {
      tried = make_placement(system, model, tail_homes(system, model, limits.quotas), slots);
      if (good(tried)) return tried;
      continue;
    }
    // First as near to the quota as whole blocks come; where that is too much, a block less.
    for (bool tight : {false, true}) {
      auto now = limits;
      if (tight) now.at_most[system.compute] = budget - tried.ring_bytes() - tried.activation_bytes;
      tried = best_spread(system, model, now, slots, kTries);
      if (good(tried)) return slots == 2 ? with_more_slots(system, model, now, tried) : tried;
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<Bytes> quotas(const System& system, const Model& model, const Allocation& allocation) {
  const Bytes total = model.bytes() + model.aside_bytes();
  auto result = allocation.shares.empty() ? virtual_quotas(system, total, allocation)
                                          : share_quotas(system, total, allocation.shares);
  Bytes aside = model.aside_bytes();
  const auto leave_out = [&](int device) {
    const Bytes bytes = device < 0 ? 0 : std::min(aside, result[device]);
    if (bytes > 0) result[device] -= bytes;
    aside -= bytes;
  };
  leave_out(system.find("cpu"));
  for (std::size_t d = 0; d < result.size(); ++d) leave_out(static_cast<int>(d));
  for (std::size_t d = 0; d < result.size(); ++d) {
    const Device& device = system.devices[d];
    if (result[d] > device.budget_bytes) {
      throw Error(ErrorKind::OutOfMemory, device.name,
                  fmt::format("{} of '{}' would rest there, {} may be used",
                              human_bytes(static_cast<double>(result[d])), model.name,
                              human_bytes(static_cast<double>(device.budget_bytes))));
    }
  }
  return result;
}

Placement plan(const System& asked_system, const Model& asked_model, const Allocation& allocation,
               Order order) {
  if (!allocation.compute.empty() && asked_system.at(allocation.compute) != asked_system.compute) {
    throw Error(ErrorKind::Usage, "allocation",
                fmt::format("computes on {}, the plan is for {}", allocation.compute,
                            asked_system.devices[asked_system.compute].name));
  }
  const auto wanted = quotas(asked_system, asked_model, allocation);
  const System system = with_links(asked_system);
  const Model model = with_seconds(asked_model, system.compute);
  Limits limits{around_pinned(system, model, wanted), {}};
  for (const Device& device : system.devices) limits.at_most.push_back(device.budget_bytes);
  Placement tried;
  auto placement = whole_blocks(system, model, limits, order, tried);
  if (order != Order::Tail && has_parts(model))
    placement = exact_parts(system, model, limits.quotas, placement);
  if (!placement) too_much(system, tried, limits.quotas[system.compute]);
  return *placement;
}

}  // namespace distorch::placement
