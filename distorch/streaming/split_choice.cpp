#include "distorch/streaming/split_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "distorch/base/error.h"
#include "distorch/base/link_clock.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/described_model.h"

namespace distorch::streaming {

namespace {

constexpr double kNever = LinkClock::kNever;

/// A side as it would be planned.
struct Planned {
  placement::System system;
  placement::Model model;
  placement::Placement placement;
};

/// Nothing where it does not fit. `others` compute meanwhile: they lend nothing.
std::optional<Planned> plan_side(const Engine& engine, const SplitSide& side,
                                 const std::vector<std::string>& others) try {
  Planned planned;
  const auto& compute = side.model->options().compute;
  planned.system = engine.system(compute);
  for (const auto& name : others)
    if (int index = planned.system.find(name); index >= 0 && index != planned.system.compute)
      planned.system.devices[index].budget_bytes = 0;
  const auto described = [&](const Profile& profile) {
    return fitting(describe(*side.model, planned.system, profile, engine.machine()),
                   planned.system);
  };
  planned.model = described(host_bound(side.profile));
  planned.placement = placement::auto_plan(planned.system, planned.model);
  // Where nothing streams, the host runs ahead of the device.
  if (planned.placement.all_resident()) planned.model = described(side.profile);
  return planned;
} catch (const Error& error) {
  if (error.kind() != ErrorKind::OutOfMemory) throw;
  return std::nullopt;
}

/// Seconds until what rests on the compute device is there; 0 where it is.
double load_seconds(const SplitSide& side, const Planned& planned) {
  if (side.model->loaded()) return 0;
  LinkClock links(planned.system.links, planned.system.roots);
  const int route = links.route("cpu", side.model->options().compute);
  if (route < 0) return 0;
  return static_cast<double>(planned.placement.bytes[planned.system.compute]) /
         links.bytes_per_s(route);
}

}  // namespace

bool SplitChoice::split() const {
  constexpr double worth_it = 0.95;
  const double one = one_load_s + steps * one_s, all = split_load_s + steps * split_s;
  return all < worth_it * one;
}

std::string SplitChoice::reason(const std::vector<std::string>& devices) const {
  return fmt::format("a step takes {:.3g} s on {} and {:.3g} s on {}", one_s, devices.front(),
                     split_s, fmt::join(devices, " and "));
}

SplitChoice choose_split(const Engine& engine, const SplitSide& together,
                         const std::vector<SplitSide>& sides, double steps) {
  SplitChoice choice;
  choice.steps = steps;
  choice.one_s = choice.split_s = kNever;
  if (auto one = plan_side(engine, together, {})) {
    choice.one_s =
        together.calls * placement::Timeline(one->system, one->model).step_s(one->placement);
    choice.one_load_s = load_seconds(together, *one);
  }
  std::vector<std::string> devices;
  for (const auto& side : sides) devices.push_back(side.model->options().compute);
  std::vector<Planned> all;
  for (const auto& side : sides) {
    auto planned = plan_side(engine, side, devices);
    if (!planned) return choice;
    choice.split_load_s = std::max(choice.split_load_s, load_seconds(side, *planned));
    all.push_back(std::move(*planned));
  }
  std::vector<placement::Replica> replicas;
  for (const auto& planned : all) replicas.push_back({&planned.model, &planned.placement});
  // Systems of all devices list them in the same order; which computes is said by the placement.
  choice.each_s = placement::steps_together(all.front().system, replicas);
  for (std::size_t i = 0; i < sides.size(); ++i) choice.each_s[i] *= sides[i].calls;
  choice.split_s = *std::max_element(choice.each_s.begin(), choice.each_s.end());
  return choice;
}

}  // namespace distorch::streaming
