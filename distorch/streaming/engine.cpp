#include "distorch/streaming/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/placement/tables.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/known_devices.h"

namespace distorch::streaming {

using placement::DeviceKind;
using placement::How;

Engine::Engine(EngineOptions options) : options_(std::move(options)) {
  // torch looks for its CUDA half once, at the first operation that might want it: be there before.
  device::list_devices();
  links_ = device::load_links(device::default_link_file());
  for (const auto& [name, bytes] : options_.budgets) {
    if (name == "disk") continue;
    auto info = describe(name);
    if (bytes > info.total_bytes)
      throw Error(ErrorKind::Usage, "--memory " + name,
                  fmt::format("asks for {}, the device has {}", human_bytes(bytes),
                              human_bytes(info.total_bytes)));
    if (info.accelerator && !options_.plan_only)
      device::limit_memory(device::to_torch(name), bytes);
  }
}

std::vector<device::DeviceInfo> Engine::devices() const {
  if (!options_.plan_only || !options_.rig) {
    auto present = device::list_devices();
    // Who imitates a machine wants no other accelerators beside it.
    if (options_.rig)
      std::erase_if(present,
                    [](const auto& info) { return info.accelerator && info.kind != "sim"; });
    return present;
  }
  std::vector<device::DeviceInfo> infos;
  for (const auto& described : options_.rig->devices) {
    auto kind = placement::kind_of(described.name);
    if (kind == DeviceKind::Disk) continue;
    device::DeviceInfo info;
    info.name = described.name;
    info.kind = described.name.substr(0, described.name.find(':'));
    info.description = described.label;
    info.total_bytes = info.free_bytes = described.memory_bytes;
    info.accelerator = kind == DeviceKind::Accelerator;
    info.fast_bf16 = true;
    infos.push_back(std::move(info));
  }
  std::stable_partition(infos.begin(), infos.end(),
                        [](const auto& info) { return info.accelerator; });
  return infos;
}

device::DeviceInfo Engine::describe(const std::string& device) const {
  std::string present;
  for (const auto& info : devices()) {
    if (info.name == device) return info;
    present += (present.empty() ? "" : ", ") + info.name;
  }
  throw Error(ErrorKind::Usage, device, "is not a device here; there is " + present);
}

std::string Engine::device_for(const std::string& requested) {
  auto infos = devices();
  if (requested.empty())
    return options_.default_device.empty() ? infos.front().name : options_.default_device;
  std::vector<std::string> present;
  for (const auto& info : infos) present.push_back(info.name);
  auto name = placement::normal_device(requested);
  if (name == "disk") return name;
  auto resolved =
      device::resolve_devices({name}, present, options_.device_map, options_.strict_devices);
  for (const auto& warning : resolved.warnings) log::warn_once(warning);
  return resolved.mapping.at(name);
}

RigDevice Engine::speeds(const std::string& device) const {
  auto info = describe(device);
  if (options_.plan_only && options_.rig) return *options_.rig->find(device);
  if (info.kind == "sim" && options_.rig) {
    // The N-th accelerator of the rig is sim:N.
    int index = device::to_torch(device).index();
    for (const auto& described : options_.rig->devices)
      if (placement::kind_of(described.name) == DeviceKind::Accelerator && index-- == 0)
        return described;
  }
  return known_speeds(info);
}

placement::System Engine::system(const std::string& compute) const {
  return system_without(compute, {});
}

placement::System Engine::system_without(const std::string& compute, const Bytes& taken) const {
  placement::System system;
  auto devices = this->devices();
  for (const auto& info : devices) {
    placement::Device device{info.name, info.total_bytes, info.total_bytes};
    auto budget = options_.budgets.find(info.name);
    if (budget != options_.budgets.end())
      device.budget_bytes = budget->second;
    else if (info.kind != "sim" && !options_.plan_only)
      device.budget_bytes = default_budget(info, device::memory_use(device::to_torch(info.name)));
    if (auto at = taken.find(info.name); at != taken.end())
      device.budget_bytes = std::max<std::int64_t>(0, device.budget_bytes - at->second);
    system.devices.push_back(device);
  }
  system.devices.push_back({"disk", std::int64_t{1} << 50, std::int64_t{1} << 50});
  add_links(system, devices, links_ ? &*links_ : nullptr, options_.rig ? &*options_.rig : nullptr);
  system.compute = system.at(compute);
  return system;
}

// --- the list of models

void Engine::add(const std::shared_ptr<StreamedModel>& model, const PlacementRequest& request,
                 bool many_steps) {
  std::erase_if(entries_, [](const Entry& entry) { return entry.model.expired(); });
  Entry entry;
  entry.model = model;
  entry.request = request;
  entry.many_steps = many_steps;
  entries_.push_back(std::move(entry));
  auto* raw = model.get();
  model->make_room = [this, raw](const std::string& device, std::int64_t bytes) {
    return make_room(device, bytes, raw);
  };
}

const Engine::Entry* Engine::find(const StreamedModel& model) const {
  for (const auto& entry : entries_)
    if (auto held = entry.model.lock(); held.get() == &model) return &entry;
  return nullptr;
}

Engine::Entry& Engine::entry(const StreamedModel& model) {
  if (auto* found = find(model)) return const_cast<Entry&>(*found);
  throw Error(ErrorKind::Internal, model.options().name, "is not known to the engine");
}

const placement::Placement* Engine::placement_of(const StreamedModel& model) const {
  const auto* found = find(model);
  return found && found->planned ? &found->placement : nullptr;
}

std::string Engine::tables_of(const StreamedModel& model) const {
  const auto* found = find(model);
  return found && found->planned
             ? placement::tables(found->system, found->plan_model, found->placement)
             : "";
}

void Engine::begin_prompt() { prompt_begin_ = ++clock_; }

void Engine::unload_all() {
  for (auto& entry : entries_)
    if (auto model = entry.model.lock()) model->unload();
}

// --- planning

placement::Model Engine::describe(const StreamedModel& model, const placement::System& system,
                                  const Profile& profile) const {
  placement::Model described;
  described.name = model.options().name;
  described.activation_bytes = profile.peak_activation_bytes;
  // Work of a block on another accelerator, from its flops and that device's speed relative to the
  // compute device's.
  auto dtype = std::string(
      c10::toString(model.options().dtype) == std::string("Float") ? "float32" : "bfloat16");
  std::vector<double> ratio(system.devices.size(), -1);
  auto own = speeds(system.devices[system.compute].name).flops(dtype);
  for (std::size_t i = 0; i < system.devices.size(); ++i) {
    if (static_cast<int>(i) == system.compute)
      ratio[i] = 1;
    else if (placement::kind_of(system.devices[i].name) == DeviceKind::Accelerator)
      if (auto other = speeds(system.devices[i].name).flops(dtype); other > 0 && own > 0)
        ratio[i] = own / other;
  }
  bool on_host = placement::kind_of(system.devices[system.compute].name) == DeviceKind::Host;
  for (std::size_t i = 0; i < model.block_count(); ++i) {
    placement::Block block;
    block.name = const_cast<StreamedModel&>(model).manifest().blocks()[i];
    block.type = block.name.substr(0, block.name.find('.'));
    auto index = static_cast<int>(i);
    // In place in the mapping a block costs the CPU no memory of its own, but its pages must stay.
    block.bytes = on_host || model.rests_converted()
                      ? std::max(model.file_bytes(index), model.resident_bytes(index))
                      : model.file_bytes(index);
    double seconds = i < profile.seconds.size() ? profile.seconds[i] : 0;
    for (double r : ratio) block.seconds.push_back(r < 0 ? -1 : seconds * r);
    if (i < profile.unpack_s.size()) block.unpack_s = profile.unpack_s[i];
    if (i < profile.activation_bytes.size()) block.activation_bytes = profile.activation_bytes[i];
    block.pinned = block.bytes == 0;
    described.blocks.push_back(std::move(block));
  }
  return described;
}

/// The loader's allocation with every device replaced by the one that stands for it here.
placement::Allocation Engine::allocation_of(const Entry& entry, const StreamedModel& model) {
  const auto& text = options_.override_allocation.empty() ? entry.request.allocation
                                                          : options_.override_allocation;
  auto allocation = placement::parse_full_allocation(text);
  allocation.compute = model.options().compute;
  std::vector<placement::Share> shares;
  for (auto share : allocation.shares) {
    share.device = device_for(share.device);
    auto same = std::find_if(shares.begin(), shares.end(),
                             [&](const auto& other) { return other.device == share.device; });
    if (same == shares.end()) {
      shares.push_back(share);
    } else {
      same->amount += share.amount;
      same->takes_rest = same->takes_rest || share.takes_rest;
    }
  }
  allocation.shares = std::move(shares);
  std::vector<std::string> donors;
  for (const auto& donor : allocation.donors) {
    auto name = device_for(donor);
    if (name != allocation.compute && std::find(donors.begin(), donors.end(), name) == donors.end())
      donors.push_back(name);
  }
  allocation.donors = std::move(donors);
  if (allocation.shares.empty() && allocation.donors.empty()) allocation.virtual_bytes = 0;
  return allocation;
}

bool Engine::records(const Entry& entry, const StreamedModel& model) const {
  // Not always: a recording keeps the activations' memory.
  bool pays = recording_pays(entry.profile.issue_s, entry.profile.total_s);
  return entry.many_steps && pays && describe(model.options().compute).kind == "cuda";
}

Profile Engine::timed(const Entry& entry, const StreamedModel& model) const {
  return records(entry, model) ? entry.profile : host_bound(entry.profile);
}

placement::Placement Engine::plan_beside(Entry& entry, StreamedModel& model, const Bytes& taken) {
  entry.system = system_without(model.options().compute, taken);
  entry.plan_model = describe(model, entry.system, timed(entry, model));
  bool has_allocation = !options_.override_allocation.empty() || !entry.request.allocation.empty();
  if (!has_allocation) {
    // Who computes on the CPU wants the accelerators left alone; only an allocation may name them.
    if (placement::kind_of(model.options().compute) == DeviceKind::Host)
      for (auto& device : entry.system.devices)
        if (placement::kind_of(device.name) == DeviceKind::Accelerator) device.budget_bytes = 0;
    return placement::auto_plan(entry.system, entry.plan_model);
  }
  auto allocation = allocation_of(entry, model);
  auto order =
      options_.mode == PlacementMode::Tail ? placement::Order::Tail : placement::Order::Spread;
  return placement::plan(entry.system, entry.plan_model, allocation, order);
}

/// What a model holds (or, when only planning, would hold) on a device.
std::int64_t Engine::held_bytes(const Entry& entry, const StreamedModel& model,
                                const std::string& device) const {
  if (!options_.plan_only) return model.device_bytes(device);
  if (!entry.in_place) return 0;
  int index = entry.system.find(device);
  if (index < 0) return 0;
  return entry.placement.bytes[index] +
         (index == entry.system.compute ? entry.placement.ring_bytes() : 0);
}

bool Engine::in_place(const Entry& entry, const StreamedModel& model) const {
  return options_.plan_only ? entry.in_place : model.loaded();
}

bool Engine::ready(const Entry& entry, const StreamedModel& model) const {
  return options_.plan_only ? entry.in_place : model.ready();
}

Engine::Bytes Engine::taken_by_others(const StreamedModel& model) const {
  Bytes taken;
  for (const auto& entry : entries_) {
    auto other = entry.model.lock();
    if (!other || other.get() == &model || !in_place(entry, *other)) continue;
    for (const auto& device : devices())
      taken[device.name] += held_bytes(entry, *other, device.name);
  }
  return taken;
}

/// Takes memory of `device` from other models: recordings first, then all weights of the one that
/// was used longest ago. Models of the current prompt only if `also_current_prompt`. False when
/// there is none.
bool Engine::evict_one(const StreamedModel* keep, bool also_current_prompt,
                       const std::string& device) {
  for (auto& entry : entries_)
    if (auto model = entry.model.lock(); model && model.get() != keep &&
                                         model->options().compute == device &&
                                         model->drop_recordings()) {
      device::empty_cache(device::to_torch(device));
      return true;
    }
  Entry* oldest = nullptr;
  for (auto& entry : entries_) {
    auto model = entry.model.lock();
    if (!model || model.get() == keep || !in_place(entry, *model) ||
        held_bytes(entry, *model, device) == 0)
      continue;
    if (!also_current_prompt && entry.used >= prompt_begin_) continue;
    if (!oldest || entry.used < oldest->used) oldest = &entry;
  }
  if (!oldest) return false;
  auto model = oldest->model.lock();
  if (!options_.plan_only)
    log::info("{} gives up its {} on {}", model->options().name,
              human_bytes(static_cast<double>(held_bytes(*oldest, *model, device))), device);
  model->unload();
  oldest->in_place = false;
  return true;
}

namespace {

bool all_resident(const placement::Placement& placement) {
  return std::all_of(placement.blocks.begin(), placement.blocks.end(),
                     [](const auto& home) { return home.how == How::Resident; });
}

}  // namespace

/// Other models of many steps that are opened for the same compute device and planned freely: they
/// share its memory.
std::vector<Engine::Entry*> Engine::partners(Entry& own) {
  std::vector<Entry*> found;
  auto self = own.model.lock();
  if (!own.many_steps || !own.request.allocation.empty() || !options_.override_allocation.empty())
    return found;
  for (auto& entry : entries_) {
    auto model = entry.model.lock();
    if (!model || model == self || !entry.many_steps || !entry.request.allocation.empty()) continue;
    if (model->options().compute == self->options().compute) found.push_back(&entry);
  }
  return found;
}

/// Plans a model together with its partners. False when they cannot stay side by side.
bool Engine::plan_together(Entry& own, StreamedModel& model) {
  auto others = partners(own);
  if (others.empty()) return false;
  own.system = system_without(model.options().compute, {});
  std::vector<placement::Use> uses{{describe(model, own.system, timed(own, model)), own.steps}};
  double per_byte = own.profile.total_s /
                    static_cast<double>(std::max<std::int64_t>(1, model.total_file_bytes()));
  for (auto* other : others) {
    auto partner = other->model.lock();
    if (other->profile.seconds.empty()) {
      // Not run yet: taken to be as hard as this one for its size.
      other->profile.peak_activation_bytes = own.profile.peak_activation_bytes;
      for (std::size_t i = 0; i < partner->block_count(); ++i)
        other->profile.seconds.push_back(
            per_byte * static_cast<double>(partner->file_bytes(static_cast<int>(i))));
    }
    uses.push_back({describe(*partner, own.system, timed(*other, *partner)), own.steps});
  }
  auto together = placement::auto_plan(own.system, uses);
  if (!together.kept) return false;
  own.plan_model = uses[0].model;
  own.placement = together.placements[0];
  for (std::size_t i = 0; i < others.size(); ++i) {
    others[i]->system = own.system;
    others[i]->plan_model = uses[i + 1].model;
    others[i]->placement = together.placements[i + 1];
    others[i]->planned = true;
    // One that is loaded more generously than the common plan gives way now, not when memory runs
    // out.
    if (auto partner = others[i]->model.lock(); in_place(*others[i], *partner))
      adopt(*others[i], *partner);
  }
  return true;
}

bool Engine::records_this(const Entry& entry, const StreamedModel& model) const {
  if (!records(entry, model)) return false;
  if (all_resident(entry.placement)) return true;
  placement::Timeline clock(entry.system, entry.plan_model);
  return recording_pays(entry.profile.issue_s, clock.report(entry.placement, 0).step_s);
}

void Engine::adopt(Entry& entry, StreamedModel& model) {
  entry.in_place = true;
  if (options_.plan_only) return;
  std::vector<BlockHome> homes;
  for (const auto& home : entry.placement.blocks)
    homes.push_back({home.how, entry.system.devices[home.device].name});
  std::map<std::string, int> slots;
  for (const auto& ring : entry.placement.rings)
    slots[entry.system.devices[ring.device].name] = ring.slots;
  model.load(homes, slots);
  model.record_steps(records_this(entry, model));
}

/// Plans a model beside what others hold; others give way as far as that helps.
void Engine::plan_alone(Entry& own, StreamedModel& model) {
  const auto& compute = model.options().compute;
  bool free_plan = own.request.allocation.empty() && options_.override_allocation.empty();
  for (;;) {
    std::exception_ptr failure;
    try {
      own.placement = plan_beside(own, model, taken_by_others(model));
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::OutOfMemory) throw;
      failure = std::current_exception();
    }
    if (!failure && (!free_plan || !own.request.eject || all_resident(own.placement))) return;
    if (evict_one(&model, false, compute) || evict_one(&model, true, compute)) continue;
    if (failure) std::rethrow_exception(failure);
    return;
  }
}

namespace {

// Which LoRAs: their strengths are numbers that change nothing in memory.
/// Whether the weights of a model take no more memory once they are converted: float32 files that
/// are computed in half of that, float16 in bfloat16.
bool conversion_saves(const StreamedModel& model) {
  std::int64_t stored = 0, converted = 0;
  for (int block = 0; block < static_cast<int>(model.block_count()); ++block) {
    stored += model.contents().weights_of(block).link_bytes;
    converted += model.contents().converted_bytes(block);
  }
  // Each weight is rounded up to whole lines of the cache when it is converted.
  constexpr double rounding = 1.01;
  return model.needs_conversion() &&
         static_cast<double>(converted) <= rounding * static_cast<double>(stored);
}

std::string loras_key(const std::vector<LoraUse>& loras) {
  std::string key;
  for (const auto& lora : loras) key += " lora " + lora.key;
  return key;
}

}  // namespace

/// One line for a model that rests whole on its compute device, the tables for one that is split.
void Engine::log_placement(const Entry& own, const StreamedModel& model) const {
  if (!all_resident(own.placement)) return log::info("\n{}", tables_of(model));
  log::info("{}: {}", model.options().name,
            placement::summary(own.system, own.plan_model, own.placement));
  log::debug("\n{}", tables_of(model));
}

void Engine::prepare(const std::shared_ptr<StreamedModel>& model, const RunNeeds& needs) {
  model->checkpoint().refresh_files();
  auto& own = entry(*model);
  own.used = ++clock_;
  own.steps = needs.steps;
  model->set_loras(needs.loras);
  model->rest_converted(own.many_steps && conversion_saves(*model));
  auto key = needs.key + loras_key(needs.loras);
  if (own.planned && ready(own, *model) && own.key == key && !options_.plan_only) return;
  const auto& compute = model->options().compute;
  own.profile = needs.profile(speeds(compute));
  own.key = key;
  if (!plan_together(own, *model)) plan_alone(own, *model);
  // Where nothing streams, the host runs ahead of the device: then the device's own time counts.
  if (all_resident(own.placement)) own.plan_model = describe(*model, own.system, own.profile);
  own.planned = true;
  adopt(own, *model);
  if (options_.plan_only) {
    PlannedRun run{model->options().name, compute,    needs.steps,
                   own.profile,           own.system, own.plan_model,
                   own.placement,         0};
    run.others_bytes = taken_by_others(*model)[compute];
    planned_runs_.push_back(std::move(run));
    return;
  }
  if (options_.log_tables) log_placement(own, *model);
}

bool Engine::make_room(const std::string& device, std::int64_t bytes, StreamedModel* user) {
  device::empty_cache(device::to_torch(device));
  if (evict_one(user, true, device)) return true;
  return user && user->shrink(bytes) > 0;
}

}  // namespace distorch::streaming
