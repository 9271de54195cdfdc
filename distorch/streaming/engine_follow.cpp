#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/retry.h"
#include "distorch/device/workspace.h"
#include "distorch/placement/auto_plan.h"
#include "distorch/placement/parts.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/engine_watch.h"

// The part of the engine that follows what is free on a device while a model runs there.
namespace distorch::streaming {

namespace {

// Shares of what this process may reach on the device.
constexpr double too_little = 0.003;   // of that is left: weights make way
constexpr double worth_it = 0.004;     // more is free: weights come back
constexpr int patience = 2;            // steps for which it has to be
constexpr int after_failure = 20;      // the same where there was less than it seemed
constexpr int most_doublings = 3;      // of that
constexpr int lasting_steps = 64;      // after which what it grew by was not for nothing
constexpr int soon = 8;                // steps after which growing is not to blame
constexpr double hardly_any = 0.002;   // of a model's bytes: small weights stay
constexpr int settled = 3;             // steps without a change after which it is to last
constexpr double worth_moving = 0.99;  // of a step's time: weights are spread anew
constexpr double slowest_link = 6e9;   // bytes/s that weights are taken to come at, at least
constexpr double strange = 1.25;       // an allocator that holds so much more has it from others

std::int64_t part(double share, std::int64_t bytes) {
  return static_cast<std::int64_t>(share * static_cast<double>(bytes));
}

/// How often the device's allocator has given back what it held to find room. Only CUDA's tells.
std::int64_t retries_of(c10::Device device) {
  if (!device.is_cuda()) return 0;
  return c10::getDeviceAllocator(device.type())->getDeviceStats(device.index()).num_alloc_retries;
}

/// Does `action`; what it throws has left the model unloaded.
void or_unloaded(const StreamedModel& model, const std::function<void()>& action) {
  try {
    action();
  } catch (...) {
    engine_watch().unloaded(model);
    throw;
  }
}

}  // namespace

/// Its placement with these homes. Nothing where no block of the plan's system stands for one.
std::optional<placement::Placement> Engine::placed_at(const Entry& entry,
                                                      const StreamedModel& model,
                                                      const std::vector<BlockHome>& at) const {
  std::vector<placement::Home> homes;
  for (const auto& home : at) {
    const int device = entry.system.find(home.device);
    if (device < 0) return std::nullopt;
    homes.push_back({device, home.how, home.rests});
  }
  if (homes.size() != entry.plan_model.blocks.size()) return std::nullopt;
  return placement::make_placement(entry.system, entry.plan_model, std::move(homes), model.slots());
}

/// Its placement as it is, after weights have moved; where nobody can tell, the plan stays.
void Engine::resettle(Entry& entry, StreamedModel& model) const {
  if (auto placed = placed_at(entry, model, model.homes())) entry.placement = std::move(*placed);
}

/// A step of a planned model by the clock, with weights elsewhere; none where the plan knows of no
/// parts of blocks. Keeps references to all three.
StepPrice Engine::step_price(const Entry& entry, const StreamedModel& model) const {
  if (!placement::has_parts(entry.plan_model)) return {};
  auto clock = std::make_shared<placement::Timeline>(entry.system, entry.plan_model);
  return [this, &entry, &model, clock](const std::vector<BlockHome>& homes) {
    const auto placed = placed_at(entry, model, homes);
    return placed ? clock->step_s(*placed) : std::numeric_limits<double>::infinity();
  };
}

/// How long it waits before it grows again: each time that it was for nothing twice as long.
int Engine::longer_wait(Entry& entry) const {
  return after_failure << std::min(entry.taken_back++, most_doublings);
}

/// An exception leaves the model unloaded.
std::int64_t Engine::shrink(StreamedModel& model, std::int64_t bytes) {
  const auto entry = find(model);
  const bool planned = entry && entry->planned;
  const auto price = planned ? step_price(*entry, model) : StepPrice();
  try {
    const auto held = model.device_bytes(model.options().compute) - model.recorded_bytes();
    const auto freed = model.shrink(bytes, price);
    if (planned) {
      entry->may_hold = held - bytes;
      // Where it has just grown, more of a step's memory was still to come than could be seen.
      const bool grew_too_much = entry->grew && entry->steps_alike < soon;
      entry->grows_after = grew_too_much ? longer_wait(*entry) : after_failure;
      entry->steps_alike = entry->more_for = 0;
      entry->grew = false;
      entry->shifted = true;
      resettle(*entry, model);
    }
    if (freed > 0) engine_watch().shrunk(model, freed);
    return freed;
  } catch (...) {
    engine_watch().unloaded(model);
    throw;
  }
}

/// What the device will have left while the next step's activations are there. An allocator that
/// caches holds what a whole step has needed since, holes between tensors included.
std::int64_t Engine::spare_bytes(Entry& entry, c10::Device device) const {
  const auto use = device::memory_use(device);
  const auto cache = std::max<std::int64_t>(0, use.reserved - use.in_use);
  // Once it has run, its libraries have their workspaces.
  const bool has_run = entry.step_bytes > 0 || entry.steps_alike > 0;
  const auto planned = std::max<std::int64_t>(
      0, entry.placement.activation_bytes - (has_run ? device::workspace_bytes(device) : 0));
  const bool ours = entry.step_bytes == 0 ||
                    static_cast<double>(cache) <= strange * static_cast<double>(entry.step_bytes);
  if (entry.steps_alike > 0 && 2 * cache >= planned && ours) entry.step_bytes = cache;
  return use.free + cache - std::max(planned, entry.step_bytes);
}

/// Weights that came and went one by one lie where each cost the least at its time; as a whole they
/// may lie better in the same memory, and in what of `spare` was given up beyond what was asked for.
/// They move where that saves enough of a step. An exception leaves the model unloaded.
void Engine::rearrange(Entry& entry, StreamedModel& model, std::int64_t spare) {
  entry.shifted = false;
  const auto& now = entry.placement;
  const auto& compute = model.options().compute;
  if (!placement::has_parts(entry.plan_model)) return;
  auto system = entry.system;
  for (std::size_t i = 0; i < system.devices.size(); ++i) {
    auto& device = system.devices[i];
    if (placement::kind_of(device.name) != placement::DeviceKind::Accelerator) continue;
    // What others have left of a second device may be somebody else's by now.
    if (static_cast<int>(i) != system.compute && device.budget_bytes > 0) return;
  }
  // So may RAM be that a plan had no use for.
  for (const auto& home : now.blocks)
    if (placement::kind_of(system.devices[home.device].name) == placement::DeviceKind::Disk) return;
  // A ring may have found room for fewer slots than it should have.
  const auto held = std::min(now.bytes[system.compute] + now.ring_bytes(),
                             model.device_bytes(compute) - model.recorded_bytes());
  const auto more =
      std::clamp<std::int64_t>(entry.may_hold - held, 0, std::max<std::int64_t>(0, spare));
  system.devices[system.compute].budget_bytes = held + more + entry.plan_model.activation_bytes;
  // What was planned to rest, idle blocks with it, may have had to make way.
  auto described = placement::without_idle(entry.plan_model);
  placement::Placement better;
  try {
    better = placement::auto_plan(system, described);
  } catch (const Error&) {
    return;  // no room for a plan where there is one for what lies there now
  }
  const auto now_s = placement::Timeline(entry.system, entry.plan_model).step_s(now);
  const auto then_s = placement::Timeline(entry.system, described).step_s(better);
  if (!(then_s < worth_moving * now_s)) return;
  std::int64_t brought = 0;
  for (std::size_t i = 0; i < better.blocks.size(); ++i)
    if (better.blocks[i] != now.blocks[i])
      brought += described.blocks[i].bytes -
                 placement::streamed_bytes(described.blocks[i], better.blocks[i]);
  if ((now_s - then_s) * entry.steps < static_cast<double>(brought) / slowest_link) return;
  const auto [homes, slots] = places_of(system, better);
  // Its allocations are no step's.
  entry.steps_alike = entry.more_for = 0;
  const bool moved = model.rearrange(homes, slots);
  entry.retries = retries_of(device::to_torch(compute));
  if (!moved) {
    resettle(entry, model);
    return;
  }
  log::info("{}: weights are spread anew, a step of {:.4g} s becomes one of {:.4g} s",
            model.options().name, now_s, then_s);
  entry.plan_model = std::move(described);
  entry.placement = better;
  engine_watch().moved(model);
}

/// Before a step of a model: does it hold too much, or could it hold more?
void Engine::follow(StreamedModel& model) {
  const auto& compute = model.options().compute;
  const auto device = device::to_torch(compute);
  if (plan_only() || device.is_cpu() || options().budgets.count(compute)) return;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return;        // somebody plans or loads: the next step will do
  device::RetryScope once;  // who fails in here cannot come back for more: the lock is ours
  auto entry = find(model);
  if (!entry || !entry->planned || !free_plan(*entry) || !model.loaded()) return;
  const auto use = device::memory_use(device);
  const auto all = use.free + std::max(use.reserved, use.in_use);
  const auto wanted = part(kKeptFree, all), least = part(too_little, all);
  // An allocator that has to give its cache back to find room waits for the device each time.
  const auto before = std::exchange(entry->retries, retries_of(device));
  // One that records a step may have to once, and one that brings blocks between two.
  const auto unlike_before = std::exchange(entry->unlike_steps, model.unlike_steps());
  const bool struggles =
      entry->steps_alike > 0 && entry->retries > before && entry->unlike_steps == unlike_before;
  auto left = spare_bytes(*entry, device);
  // Who is idle goes before weights of the one that runs.
  while (left < least && free_some({&model}, compute, wanted - left)) {
    device::empty_cache(device);
    left = spare_bytes(*entry, device);
  }
  const auto resting = entry->placement.bytes[entry->placement.compute];
  const bool can_shrink = resting > part(hardly_any, entry->plan_model.bytes());
  if (can_shrink && (left < least || struggles)) {
    const bool others_took_it = !struggles && !(entry->grew && entry->steps_alike < soon);
    const auto grows_after = entry->grows_after;
    shrink(model, struggles ? std::max(wanted, wanted - left) : wanted - left);
    if (others_took_it) entry->grows_after = grows_after;
    device::empty_cache(device);
    return;
  }
  // What others of many steps were promised stays theirs, also while they are not there.
  const bool shared = std::any_of(entries_.begin(), entries_.end(), [&](const auto& other) {
    auto held = other->model.lock();
    return held && other != entry && other->many_steps && held->options().compute == compute;
  });
  const bool more =
      !shared && !entry->placement.all_resident() && left > wanted + part(worth_it, all);
  ++entry->steps_alike;
  if (entry->grew && entry->steps_alike > lasting_steps) entry->taken_back = 0;
  entry->more_for = more ? entry->more_for + 1 : 0;
  if (entry->more_for <= std::max(patience, entry->grows_after)) {
    // Room that has just come may go again.
    const bool lasting = !more || entry->more_for > patience;
    if (entry->shifted && entry->steps_alike >= settled && lasting)
      or_unloaded(model, [&] { rearrange(*entry, model, left - wanted); });
    return;
  }
  entry->steps_alike = entry->more_for = entry->grows_after = 0;
  std::optional<std::int64_t> grown;
  or_unloaded(model, [&] { grown = model.grow(left - wanted, step_price(*entry, model)); });
  entry->retries = retries_of(device);
  entry->may_hold = 0;
  if (!grown) entry->grows_after = longer_wait(*entry);
  entry->grew = grown.value_or(0) > 0;
  entry->shifted = entry->shifted || entry->grew;
  resettle(*entry, model);
  engine_watch().moved(model);
}

}  // namespace distorch::streaming
