#include "distorch/streaming/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/retry.h"
#include "distorch/placement/alternatives.h"
#include "distorch/placement/tables.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/described_model.h"
#include "distorch/streaming/engine_watch.h"
#include "distorch/streaming/kernel_loader.h"
#include "distorch/streaming/model_form.h"

namespace distorch::streaming {

using placement::DeviceKind;

namespace {

/// What an entry of the engine says of its model, which is loaded.
template <class Entry>
ModelState state_of(const Entry& entry, const StreamedModel& model) {
  const auto& plan = entry.placement;
  ModelState state;
  state.model = model.options().name;
  state.compute = model.options().compute;
  state.shares = shares_of(model);
  for (const auto& share : state.shares) state.bytes += share.bytes;
  state.ring_bytes = plan.ring_bytes();
  state.activation_bytes = plan.activation_bytes;
  state.peak_bytes = plan.peak_bytes();
  state.budget_bytes = entry.system.devices[entry.system.compute].budget_bytes;
  state.steps = entry.steps;
  placement::Timeline clock(entry.system, entry.plan_model);
  auto report = clock.report(plan, 0);
  if (std::isfinite(report.step_s) && std::isfinite(report.first_s)) {
    state.step_s = report.step_s;
    state.first_step_s = report.first_s;
    state.lanes = std::move(report.lanes);
  }
  return state;
}

/// The model is in place, whatever becomes of what is told about it.
template <class Entry>
void tell_placed(const Entry& entry, const StreamedModel& model) noexcept {
  try {
    engine_watch().placed(model, state_of(entry, model));
  } catch (const std::exception& error) {
    log::debug("{}: its place is not told: {}", model.options().name, error.what());
  }
}

}  // namespace

// --- use

Engine::Use::Use(Engine* engine, std::shared_ptr<Entry> entry)
    : engine_(engine), entry_(std::move(entry)) {}

Engine::Use::Use(Use&& other) noexcept : engine_(other.engine_), entry_(std::move(other.entry_)) {}

Engine::Use& Engine::Use::operator=(Use&& other) noexcept {
  if (this == &other) return *this;
  if (entry_) engine_->release(*entry_);
  engine_ = other.engine_;
  entry_ = std::move(other.entry_);
  return *this;
}

Engine::Use::~Use() {
  if (entry_) engine_->release(*entry_);
}

void Engine::release(Entry& entry) {
  std::lock_guard lock(mutex_);
  --entry.uses;
  if (auto model = entry.model.lock()) engine_watch().used(*model, false);
  released_.notify_all();
}

/// Waits until nobody else uses any of the models, then uses all of them.
void Engine::claim(const std::vector<Wanted>& wanted, std::unique_lock<std::mutex>& lock,
                   std::vector<Use>& uses, std::vector<Draft>& drafts) {
  for (const auto& [model, needs] : wanted) {
    auto entry = find(*model);
    if (!entry)
      throw Error(ErrorKind::Internal, model->options().name, "is not known to the engine");
    auto key = needs.key;
    for (const auto& lora : needs.loras) key += " + " + lora.key;
    drafts.push_back({std::move(entry), model, std::move(key), {}, {}});
  }
  auto mine = [&](const Draft& draft) {
    return draft.entry->uses == 0 || draft.entry->user == std::this_thread::get_id();
  };
  while (!std::all_of(drafts.begin(), drafts.end(), mine)) {
    throw_if_interrupted();
    released_.wait_for(lock, std::chrono::milliseconds(50));
  }
  for (std::size_t i = 0; i < drafts.size(); ++i) {
    auto& entry = *drafts[i].entry;
    ++entry.uses;
    entry.user = std::this_thread::get_id();
    engine_watch().used(*drafts[i].model, true);
    uses.push_back(Use(this, drafts[i].entry));
    entry.used = ++clock_;
    entry.run = current_run();
    entry.steps = wanted[i].needs.steps;
    entry.apart = wanted[i].needs.apart;
    entry.beside = wanted[i].needs.beside;
  }
}

// --- the list of models

void Engine::add(const std::shared_ptr<StreamedModel>& model, const PlacementRequest& request,
                 bool many_steps) {
  std::lock_guard lock(mutex_);
  std::erase_if(entries_, [](const auto& entry) { return entry->model.expired(); });
  auto entry = std::make_shared<Entry>();
  entry->model = model;
  entry->request = request;
  entry->many_steps = many_steps;
  entries_.push_back(std::move(entry));
  engine_watch().added(model);
  auto* raw = model.get();
  model->make_room = [this, raw](const std::string& device, std::int64_t bytes) {
    return make_room(device, bytes, raw);
  };
  model->before_step = [this, raw] {
    begin_next(*raw);
    follow(*raw);
  };
  if (!plan_only())
    kernel_loader().start(device::to_torch(model->options().compute), kernels_of(*model));
}

std::shared_ptr<Engine::Entry> Engine::find(const StreamedModel& model) const {
  for (const auto& entry : entries_)
    if (auto held = entry->model.lock(); held.get() == &model) return entry;
  return nullptr;
}

const placement::Placement* Engine::placement_of(const StreamedModel& model) const {
  std::lock_guard lock(mutex_);
  auto found = find(model);
  return found && found->planned ? &found->placement : nullptr;
}

std::string Engine::tables_of(const StreamedModel& model) const {
  std::lock_guard lock(mutex_);
  auto found = find(model);
  return found && found->planned
             ? placement::tables(found->system, found->plan_model, found->placement)
             : "";
}

void Engine::unload_all() {
  std::lock_guard lock(mutex_);
  for (auto& entry : entries_)
    if (auto model = entry->model.lock(); model && entry->uses == 0) {
      model->unload();
      entry->in_place = false;
      engine_watch().unloaded(*model);
    }
}

// --- who holds what

/// What its plan lets a model hold on a device: on the compute device with rings, and with
/// activations where it runs.
std::int64_t Engine::Entry::planned_bytes(const std::string& device, bool running) const {
  int index = system.find(device);
  if (!planned || index < 0) return 0;
  if (index != system.compute) return placement.bytes[index];
  return running ? placement.peak_bytes() : placement.bytes[index] + placement.ring_bytes();
}

/// A model in use is not asked: its thread may be changing what it holds.
bool Engine::in_place(const Entry& entry) const {
  if (plan_only() || entry.uses > 0) return entry.in_place;
  auto model = entry.model.lock();
  return model && model->loaded();
}

/// What a model holds or, where it is in use or only planned, what its plan lets it hold. Weights
/// that stream from RAM or are used there in place must stay there.
std::int64_t Engine::held_bytes(const Entry& entry, const std::string& device) const {
  if (!in_place(entry)) return 0;
  auto planned = entry.planned_bytes(device, entry.uses > 0);
  if (plan_only() || entry.uses > 0) return planned;
  auto held = entry.model.lock()->device_bytes(device);
  return placement::kind_of(device) == DeviceKind::Host ? std::max(held, planned) : held;
}

Engine::Entries Engine::others_in_place(const std::vector<Draft>& drafts) const {
  Entries others;
  for (const auto& entry : entries_) {
    bool own = std::any_of(drafts.begin(), drafts.end(),
                           [&](const Draft& draft) { return draft.entry == entry; });
    if (!own && !entry->model.expired() && in_place(*entry)) others.push_back(entry);
  }
  return others;
}

std::vector<Holder> Engine::holders(const Entries& others, const placement::System& system,
                                    const std::vector<Draft>& partners) const {
  std::vector<Holder> list;
  for (const auto& entry : others) {
    Holder holder;
    for (const auto& device : system.devices)
      holder.bytes.push_back(placement::kind_of(device.name) == DeviceKind::Disk
                                 ? 0
                                 : held_bytes(*entry, device.name));
    holder.pinned = entry->uses > 0;
    auto run = entry->run.lock();
    holder.current = run && !run->ended();
    holder.used = entry->used;
    for (std::size_t i = 0; i < partners.size(); ++i)
      if (partners[i].entry == entry) holder.partner = static_cast<int>(i);
    list.push_back(std::move(holder));
  }
  return list;
}

void Engine::evict(Entry& entry, const std::string& device) {
  auto model = entry.model.lock();
  if (!plan_only()) {
    const auto bytes = held_bytes(entry, device);
    log::info("{} gives up its {} on {}", model->options().name,
              human_bytes(static_cast<double>(bytes)), device);
    model->unload();
    engine_watch().evicted(*model, device, bytes);
  }
  entry.in_place = false;
}

/// Takes memory of `device` from models that are not in use: recordings first, then all weights of
/// the one that was used longest ago, those of running prompts last. False where there is none.
bool Engine::evict_one(const std::vector<const StreamedModel*>& keep, const std::string& device) {
  Entries others;
  for (const auto& entry : entries_) {
    auto model = entry->model.lock();
    if (!model || entry->uses > 0 || std::find(keep.begin(), keep.end(), model.get()) != keep.end())
      continue;
    if (!plan_only() && model->options().compute == device && model->drop_recordings()) {
      device::empty_cache(device::to_torch(device));
      return true;
    }
    if (in_place(*entry)) others.push_back(entry);
  }
  placement::System one;
  one.devices.push_back({device, 0, 0});
  int next = next_to_go(holders(others, one, {}), 0);
  if (next < 0) return false;
  evict(*others[next], device);
  return true;
}

/// The same, or memory that is managed elsewhere.
bool Engine::free_some(const std::vector<const StreamedModel*>& keep, const std::string& device,
                       std::int64_t bytes) {
  const auto& foreign = options().foreign;
  return evict_one(keep, device) || (foreign.free && foreign.free(device, bytes));
}

bool Engine::make_room(const std::string& device, std::int64_t bytes, StreamedModel* user) {
  std::lock_guard lock(mutex_);
  device::RetryScope once;  // who fails in here cannot come back for more
  device::empty_cache(device::to_torch(device));
  if (free_some({user}, device, bytes)) return true;
  if (user) return shrink(*user, bytes) > 0;
  for (const auto& entry : entries_)
    if (auto model = entry->model.lock();
        model && entry->uses > 0 && entry->user == std::this_thread::get_id() &&
        model->options().compute == device && shrink(*model, bytes) > 0)
      return true;
  return false;
}

// --- preparing

bool Engine::free_plan(const Entry& entry) const {
  return options().override_allocation.empty() && entry.request.allocation.empty();
}

bool Engine::unchanged(const std::vector<Draft>& drafts) const {
  return !plan_only() && std::all_of(drafts.begin(), drafts.end(), [&](const Draft& draft) {
    return draft.entry->planned && draft.model->ready() && draft.entry->key == draft.key;
  });
}

/// Models that are in place under their plans: others that have come since make way where the plans
/// need their memory. False where somebody holds it who cannot.
bool Engine::fits_again(const std::vector<Draft>& drafts) {
  auto system = machine_.system(drafts[0].model->options().compute);
  for (std::size_t d = 0; d < system.devices.size(); ++d) {
    const auto& device = system.devices[d];
    if (placement::kind_of(device.name) == DeviceKind::Disk) continue;
    std::int64_t needed = 0, activations = 0;
    for (const auto& draft : drafts) {
      needed += draft.entry->planned_bytes(device.name, false);
      if (static_cast<int>(d) == system.compute)
        activations = std::max(activations, draft.entry->placement.activation_bytes);
    }
    auto others = others_in_place(drafts);
    auto list = holders(others, system, {});
    auto missing = needed + activations - device.budget_bytes;
    for (const auto& holder : list) missing += holder.bytes[d];
    for (int i : to_go(list, static_cast<int>(d), missing)) {
      missing -= list[i].bytes[d];
      list[i].bytes[d] = 0;
      evict(*others[i], device.name);
    }
    if (missing > 0 &&
        std::any_of(list.begin(), list.end(), [&](const Holder& h) { return h.bytes[d] > 0; }))
      return false;
  }
  return true;
}

/// Says what the model is to hold from now on; nothing is brought yet.
void Engine::describe_needs(const Draft& draft, const RunNeeds& needs) const {
  draft.model->checkpoint().refresh_files();
  draft.model->set_loras(needs.loras);
}

Engine::Use Engine::prepare(const std::shared_ptr<StreamedModel>& model, const RunNeeds& needs) {
  return std::move(prepare({{model, needs}}).front());
}

std::vector<Engine::Use> Engine::prepare(const std::vector<Wanted>& wanted, const Wanted* next) {
  device::RetryScope once;       // plans say what makes room here
  std::shared_ptr<Next> before;  // ends after the lock, which its thread may wait for
  std::vector<Use> uses;         // the same where something is thrown
  Use next_use;
  std::unique_lock lock(mutex_);
  std::vector<Draft> drafts;
  claim(wanted, lock, uses, drafts);
  auto following = claim_next(next, drafts, next_use);
  for (std::size_t i = 0; i < drafts.size(); ++i) describe_needs(drafts[i], wanted[i].needs);
  const bool foreseen = !following || following->key == following->entry->key;
  if (foreseen && unchanged(drafts) && fits_again(drafts)) {
    engine_watch().reused(static_cast<std::int64_t>(drafts.size()));
    foresee(following, next_use);
    if (following) expect(*wanted[0].model, *following, before);
    return uses;
  }
  auto all = drafts;
  if (following) all.push_back(*following);
  std::vector<placement::System> room;
  for (const auto& draft : all) room.push_back(room_for(draft, all));
  lock.unlock();
  for (std::size_t i = 0; i < drafts.size(); ++i)
    profile(drafts[i], wanted[i].needs, std::move(room[i]));
  if (!foreseen) profile_next(following, next->needs, std::move(room.back()));
  lock.lock();
  foresee(following, next_use);
  // Only what computes on one device and is planned freely can be planned as one.
  auto group_of = [&](const Draft& draft) {
    return free_plan(*draft.entry) ? draft.model->options().compute : "";
  };
  while (!drafts.empty()) {
    auto first = std::find_if(drafts.begin(), drafts.end(),
                              [&](const Draft& draft) { return group_of(draft).empty(); });
    if (first == drafts.end()) first = drafts.begin();
    std::vector<Draft> group{*first};
    auto name = group_of(*first);
    drafts.erase(first);
    std::erase_if(drafts, [&](const Draft& draft) {
      if (name.empty() || group_of(draft) != name) return false;
      group.push_back(draft);
      return true;
    });
    plan(group);
  }
  if (following) expect(*wanted[0].model, *following, before);
  return uses;
}

// --- carrying plans out

/// Where a placement of a system has the blocks of a model, and how many slots its rings have.
Engine::Places Engine::places_of(const placement::System& system,
                                 const placement::Placement& placement) {
  Places places;
  for (const auto& home : placement.blocks)
    places.homes.push_back({home.how, system.devices[home.device].name, home.rests});
  for (const auto& ring : placement.rings)
    places.slots[system.devices[ring.device].name] = ring.slots;
  return places;
}

/// From now on this is the model's plan.
void Engine::accept(const Draft& draft, const placement::System& system,
                    const placement::Placement& placement) {
  auto& entry = *draft.entry;
  entry.key = draft.key;
  if (draft.profile.used.size() > 0) entry.profile = draft.profile;
  entry.system = system;
  entry.plan_model = draft.described;
  entry.placement = placement;
  entry.planned = true;
}

void Engine::load(Entry& entry, StreamedModel& model) {
  const auto [homes, slots] = places_of(entry.system, entry.placement);
  model.load(homes, slots);
  entry.steps_alike = entry.more_for = entry.grows_after = 0;
  entry.grew = entry.shifted = false;
  entry.taken_back = 0;
  entry.step_bytes = 0;
  bool record = records(entry, entry.profile, model);
  if (!entry.placement.all_resident() && can_record(entry, model)) {
    placement::Timeline clock(entry.system, entry.plan_model);
    record = recording_may_pay(entry.profile.issue_s, clock.report(entry.placement, 0).step_s);
  }
  model.record_steps(record);
}

/// Brings a model where its plan says; where an allocator's memory has holes that no plan knows of,
/// others give way who are not in use and not to be kept (null: nobody does). A failure leaves it
/// unloaded and without a plan.
void Engine::bring(const Draft& draft, const std::vector<Draft>* keep) {
  auto& entry = *draft.entry;
  std::vector<const StreamedModel*> kept;
  if (keep)
    for (const auto& other : *keep) kept.push_back(other.model.get());
  kept.push_back(draft.model.get());
  if (!plan_only()) engine_watch().planned(*draft.model);
  try {
    while (!plan_only()) {
      try {
        load(entry, *draft.model);
        break;
      } catch (const std::exception& error) {
        const auto& compute = draft.model->options().compute;
        auto bytes = entry.planned_bytes(compute, true);
        if (!keep || !device::is_out_of_memory(error) || !free_some(kept, compute, bytes)) throw;
      }
    }
    entry.in_place = true;
    if (!plan_only()) tell_placed(entry, *draft.model);
  } catch (...) {
    entry.planned = entry.in_place = false;
    engine_watch().unloaded(*draft.model);
    throw;
  }
}

/// The model that is prepared does not fail because a partner could not be moved: that one is
/// unloaded then.
void Engine::bring_partner(const Draft& draft, const std::vector<Draft>& keep) {
  try {
    bring(draft, &keep);
  } catch (const std::exception& error) {
    log::warn("{} is unloaded: {}", draft.model->options().name, error.what());
    draft.model->unload();
  }
}

/// One line for a model that rests whole on its compute device; behind it the tables for one that is
/// split.
void Engine::log_placement(const Entry& entry) const {
  const bool whole = entry.placement.all_resident();
  log::info("{}: {}", entry.plan_model.name,
            placement::summary(entry.system, entry.plan_model, entry.placement));
  const auto level = whole ? spdlog::level::debug : spdlog::level::info;
  if (spdlog::should_log(level))
    spdlog::log(level, "\n{}", placement::tables(entry.system, entry.plan_model, entry.placement));
  if (!whole && free_plan(entry) && spdlog::should_log(spdlog::level::info))
    if (auto why = placement::reason(entry.system, entry.plan_model, entry.placement); !why.empty())
      log::info("{}: {}", entry.plan_model.name, why);
}

void Engine::report(const std::vector<Draft>& drafts, const std::vector<std::string>& gave_way) {
  for (const auto& draft : drafts) {
    const auto& entry = *draft.entry;
    const auto& compute = draft.model->options().compute;
    if (!plan_only()) {
      if (options().log_tables) log_placement(entry);
      continue;
    }
    PlannedRun run{draft.model->options().name,
                   compute,
                   entry.steps,
                   entry.profile,
                   entry.system,
                   entry.plan_model,
                   entry.placement,
                   0,
                   gave_way,
                   entry.beside};
    for (const auto& other : others_in_place(drafts))
      run.others_bytes += held_bytes(*other, compute);
    // Of those that run within each other's steps one computes at a time.
    for (const auto& other : drafts)
      if (other.entry != draft.entry)
        run.others_bytes += other.entry->planned_bytes(compute, false);
    planned_runs_.push_back(std::move(run));
  }
}

}  // namespace distorch::streaming
