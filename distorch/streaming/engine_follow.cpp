#include <algorithm>

#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/engine_watch.h"

// The part of the engine that follows what is free on a device while a model runs there.
namespace distorch::streaming {

namespace {

// Shares of what this process may reach on the device.
constexpr double kept_free = 0.006;   // for whoever starts beside us, and for an allocator's holes
constexpr double too_little = 0.003;  // of that is left: weights make way
constexpr double worth_it = 0.004;    // more is free: weights come back
constexpr int patience = 2;           // steps for which it has to be
constexpr int after_failure = -16;    // from here, where there was less than it seemed

std::int64_t part(double share, std::int64_t bytes) {
  return static_cast<std::int64_t>(share * static_cast<double>(bytes));
}

}  // namespace

/// Its placement as it is, after weights have moved. Where no block of the plan's system stands for
/// a home the plan stays.
void Engine::resettle(Entry& entry, StreamedModel& model) const {
  std::vector<placement::Home> homes;
  for (const auto& home : model.homes()) {
    const int device = entry.system.find(home.device);
    if (device < 0) return;
    homes.push_back({device, home.how, home.rests});
  }
  if (homes.size() != entry.plan_model.blocks.size()) return;
  int slots = 1;
  for (const auto& ring : entry.placement.rings) slots = std::max(slots, ring.slots);
  if (entry.placement.rings.empty()) slots = model.options().slots;
  entry.placement =
      placement::make_placement(entry.system, entry.plan_model, std::move(homes), slots);
}

/// An exception leaves the model unloaded.
std::int64_t Engine::shrink(StreamedModel& model, std::int64_t bytes) {
  try {
    const auto freed = model.shrink(bytes);
    if (auto entry = find(model); entry && entry->planned) {
      entry->steps_alike = after_failure;
      resettle(*entry, model);
    }
    if (freed > 0) engine_watch().shrunk(model, freed);
    return freed;
  } catch (...) {
    engine_watch().unloaded(model);
    throw;
  }
}

/// Before a step of a model: does it hold too much, or could it hold more? Free is what the device
/// has left when the step's activations are there.
void Engine::follow(StreamedModel& model) {
  const auto& compute = model.options().compute;
  const auto device = device::to_torch(compute);
  if (plan_only() || device.is_cpu() || options().budgets.count(compute)) return;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return;  // somebody plans or loads: the next step will do
  auto entry = find(model);
  if (!entry || !entry->planned || !free_plan(*entry) || !model.loaded()) return;
  const auto spare = [&](bool cached) {
    const auto use = device::memory_use(device);
    const auto cache = std::max<std::int64_t>(0, use.reserved - use.in_use);
    const auto all = use.free + std::max(use.reserved, use.in_use);
    const auto needed = entry->placement.activation_bytes;
    // What a whole step has needed is held by an allocator that caches since.
    return std::pair(cached && 2 * cache >= needed ? use.free : use.free + cache - needed, all);
  };
  auto [left, all] = spare(entry->steps_alike > 0);
  const auto wanted = part(kept_free, all);
  if (left < part(too_little, all)) {
    device::empty_cache(device);
    left = spare(false).first;
  }
  // Who is idle goes before weights of the one that runs.
  while (left < part(too_little, all) && free_some({&model}, compute, wanted - left)) {
    device::empty_cache(device);
    left = spare(false).first;
  }
  if (left < part(too_little, all)) {
    shrink(model, wanted - left);
    entry->steps_alike = 0;
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
  if (!more) {
    if (entry->steps_alike < 1) ++entry->steps_alike;
    return;
  }
  if (++entry->steps_alike <= patience) return;
  entry->steps_alike = 0;
  if (model.grow(left - wanted) > 0) resettle(*entry, model);
}

}  // namespace distorch::streaming
