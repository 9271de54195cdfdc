#include <algorithm>

#include "distorch/device/device.h"
#include "distorch/device/holes.h"
#include "distorch/device/memory.h"
#include "distorch/streaming/described_model.h"
#include "distorch/streaming/engine.h"
#include "distorch/streaming/model_form.h"

// The part of the engine that makes plans; engine.cpp carries them out.
namespace distorch::streaming {

using placement::DeviceKind;

/// Who computes on the CPU wants the accelerators left alone, and who has replicas leaves them
/// theirs; only an allocation may name them.
placement::System Engine::system_of(const Entry& entry, const std::string& compute) const {
  auto system = machine_.system(compute);
  if (free_plan(entry))
    for (const auto& name : entry.apart)
      if (int index = system.find(name); index >= 0 && index != system.compute)
        system.devices[index].budget_bytes = 0;
  if (free_plan(entry) && placement::kind_of(compute) == DeviceKind::Host)
    for (auto& device : system.devices)
      if (placement::kind_of(device.name) == DeviceKind::Accelerator) device.budget_bytes = 0;
  return system;
}

/// What a model may use of the memory: nobody who has to stay loses his; those that are prepared
/// with it and others of many steps keep room for their files where all of them fit side by side.
placement::System Engine::room_for(const Draft& draft, const std::vector<Draft>& drafts) const {
  const auto& compute = draft.model->options().compute;
  auto system = system_of(*draft.entry, compute);
  auto take = [&](placement::Device& device, std::int64_t bytes) {
    device.budget_bytes = std::max<std::int64_t>(0, device.budget_bytes - bytes);
  };
  std::int64_t partners = 0;
  for (const auto& entry : entries_) {
    auto model = entry->model.lock();
    if (!model || entry == draft.entry) continue;
    const bool with_it = std::any_of(drafts.begin(), drafts.end(),
                                     [&](const Draft& other) { return other.entry == entry; });
    if (with_it || (entry->many_steps && entry->uses == 0)) {
      if (model->options().compute == compute) partners += model->total_file_bytes();
      continue;
    }
    const bool stays = entry->uses > 0 || (!draft.entry->request.eject && in_place(*entry));
    for (auto& device : system.devices)
      if (stays && placement::kind_of(device.name) != DeviceKind::Disk)
        take(device, held_bytes(*entry, device.name));
  }
  auto& own = system.devices[system.compute];
  if (draft.model->total_file_bytes() + partners <= own.budget_bytes) take(own, partners);
  return system;
}

/// A dry run of what the model is to do, in the form that its weights are to rest in.
void Engine::profile(Draft& draft, const RunNeeds& needs, placement::System room) {
  auto& model = *draft.model;
  const auto compute = speeds(model.options().compute);
  if (!draft.entry->many_steps || !model.needs_conversion()) {
    model.rest_converted(false);
    draft.profile = needs.profile(compute);
    return;
  }
  FormRequest request;
  request.system = std::move(room);
  request.steps = needs.steps;
  request.profile = [&] { return needs.profile(compute); };
  request.timed = [&](const Profile& bare) { return timed(*draft.entry, bare, model); };
  if (!free_plan(*draft.entry))
    request.plan = [allocation = allocation_of(*draft.entry, model.options().compute),
                    order = order()](const placement::System& system,
                                     const placement::Model& described) {
      return placement::plan(system, described, allocation, order);
    };
  draft.profile = choose_form(model, machine_, request);
}

/// The allocation that was asked for.
placement::Allocation Engine::allocation_of(const Entry& entry, const std::string& compute) const {
  const auto& everywhere = options().override_allocation;
  return machine_.allocation(everywhere.empty() ? entry.request.allocation : everywhere, compute);
}

placement::Order Engine::order() const {
  return options().mode == PlacementMode::Tail ? placement::Order::Tail : placement::Order::Spread;
}

bool Engine::can_record(const Entry& entry, const StreamedModel& model) const {
  return entry.many_steps && describe(model.options().compute).kind == "cuda";
}

bool Engine::records(const Entry& entry, const Profile& profile, const StreamedModel& model) const {
  // Not always: a recording keeps the activations' memory.
  bool pays = recording_pays(profile.issue_s, profile.total_s);
  return pays && can_record(entry, model);
}

Profile Engine::timed(const Entry& entry, const Profile& profile,
                      const StreamedModel& model) const {
  return records(entry, profile, model) ? profile : host_bound(profile);
}

/// Other models of many steps that are opened for the same compute device, planned freely and not
/// in use: they share its memory. One that has not run yet is taken to be as hard for its size.
std::vector<Engine::Draft> Engine::partners_of(const std::vector<Draft>& drafts,
                                               const placement::System& system) const {
  std::vector<Draft> partners;
  const auto& own = drafts[0];
  if (!own.entry->many_steps || !free_plan(*own.entry)) return partners;
  double per_byte = own.profile.total_s /
                    static_cast<double>(std::max<std::int64_t>(1, own.model->total_file_bytes()));
  for (const auto& entry : entries_) {
    auto model = entry->model.lock();
    if (!model || entry->uses > 0 || !entry->many_steps || !free_plan(*entry) ||
        model->options().compute != own.model->options().compute)
      continue;
    Draft partner{entry, model, entry->key, entry->profile, {}};
    if (partner.profile.seconds.empty()) {
      partner.profile.peak_activation_bytes = own.profile.peak_activation_bytes;
      for (std::size_t i = 0; i < model->block_count(); ++i)
        partner.profile.seconds.push_back(
            per_byte * static_cast<double>(model->file_bytes(static_cast<int>(i))));
    }
    partner.described =
        streaming::describe(*model, system, timed(*entry, partner.profile, *model), machine_);
    partners.push_back(std::move(partner));
  }
  return partners;
}

/// Recordings of others are the first to go where not everything can be resident beside them.
void Engine::drop_recordings(const PlanRequest& request, const Entries& others) {
  if (plan_only()) return;
  std::int64_t needed = 0, activations = 0;
  int compute = request.system.compute;
  for (const auto* uses : {&request.wanted, &request.partners})
    for (const auto& use : *uses) {
      needed += use.model.bytes();
      activations = std::max(activations, use.model.activation_bytes);
    }
  for (const auto& holder : request.holders) needed += holder.bytes[compute];
  if (needed + activations <= request.system.devices[compute].budget_bytes) return;
  const auto& device = request.system.devices[compute].name;
  bool dropped = false;
  for (const auto& entry : others)
    if (auto model = entry->model.lock();
        model && entry->uses == 0 && model->options().compute == device)
      dropped = model->drop_recordings() || dropped;
  if (dropped) device::empty_cache(device::to_torch(device));
}

/// How much more its plan lets a model hold on its compute device than it holds now.
std::int64_t Engine::growth(const Draft& draft) const {
  if (plan_only()) return 0;
  const auto& compute = draft.model->options().compute;
  return draft.entry->planned_bytes(compute, false) - draft.model->device_bytes(compute);
}

/// Plans models as one, then carries the plan out.
void Engine::plan(std::vector<Draft>& drafts) {
  const auto& own = *drafts[0].entry;
  const auto& compute = drafts[0].model->options().compute;
  PlanRequest request;
  request.system = system_of(own, compute);
  if (!free_plan(own)) request.allocation = allocation_of(own, compute);
  request.order = order();
  request.eject = own.request.eject;
  for (auto& draft : drafts) {
    draft.described = streaming::describe(
        *draft.model, request.system, timed(*draft.entry, draft.profile, *draft.model), machine_);
    request.wanted.push_back({draft.described, draft.entry->steps});
  }
  auto partners = partners_of(drafts, request.system);
  for (const auto& partner : partners) request.partners.push_back({partner.described, own.steps});
  auto others = others_in_place(drafts);
  request.holders = holders(others, request.system, partners);
  drop_recordings(request, others);
  request.holders = holders(others, request.system, partners);
  auto plan = plan_models(request);
  if (plan.idle_aside)
    for (auto* all : {&drafts, &partners})
      for (auto& draft : *all) draft.described = placement::without_idle(draft.described);

  std::vector<std::string> gave_way;
  for (int i : plan.gone) {
    gave_way.push_back(others[i]->model.lock()->options().name);
    evict(*others[i], compute);
  }
  // Partners that are loaded move too: one that is so more generously than the common plan gives
  // way now, not when memory runs out.
  std::vector<const Draft*> moved;
  if (plan.together)
    for (std::size_t i = 0; i < partners.size(); ++i) {
      if (in_place(*partners[i].entry)) moved.push_back(&partners[i]);
      accept(partners[i], plan.system, plan.placements[drafts.size() + i]);
    }
  for (std::size_t i = 0; i < drafts.size(); ++i) {
    auto& draft = drafts[i];
    // Where nothing streams, the host runs ahead of the device: then the device's own time counts.
    if (plan.placements[i].all_resident()) {
      draft.described = streaming::describe(*draft.model, request.system, draft.profile, machine_);
      if (plan.idle_aside) draft.described = placement::without_idle(draft.described);
    }
    accept(draft, plan.system, plan.placements[i]);
    if (!plan_only() && !plan.placements[i].all_resident())
      device::avoid_holes(device::to_torch(compute), is_tight(plan.placements[i], plan.system));
  }
  for (const auto& draft : drafts) moved.push_back(&draft);
  // Who gives memory up comes before who takes it.
  std::stable_sort(moved.begin(), moved.end(), [&](const Draft* first, const Draft* second) {
    return growth(*first) < growth(*second);
  });
  for (const auto* draft : moved)
    if (draft->entry->uses > 0)
      bring(*draft, &drafts);
    else
      bring_partner(*draft, drafts);
  report(drafts, gave_way);
}

}  // namespace distorch::streaming
