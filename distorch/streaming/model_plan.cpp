#include "distorch/streaming/model_plan.h"

#include <algorithm>
#include <numeric>

#include "distorch/base/error.h"

namespace distorch::streaming {

using placement::Placement;
using placement::System;

namespace {

using Bytes = std::int64_t;

bool has(const std::vector<int>& list, int value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

bool may_go(const Holder& holder, int device) { return !holder.pinned && holder.bytes[device] > 0; }

/// Whether `a` goes before `b`.
bool sooner(const Holder& a, const Holder& b) {
  return a.current != b.current ? b.current : a.used < b.used;
}

/// Plans with fewer and fewer holders.
class Search {
 public:
  explicit Search(const PlanRequest& request) : request_(request) {}

  ModelPlan run() {
    if (!request_.allocation && (!request_.partners.empty() || request_.wanted.size() > 1))
      if (auto plan = side_by_side(true)) return *plan;
    if (request_.wanted.size() > 1) {
      if (auto plan = side_by_side(false)) return *plan;
      refuse();
    }
    return alone();
  }

 private:
  /// `partners`: they are planned too, so what they hold now does not count.
  std::optional<ModelPlan> side_by_side(bool partners) {
    auto uses = request_.wanted;
    if (partners) uses.insert(uses.end(), request_.partners.begin(), request_.partners.end());
    auto gone = ejected(uses, partners);
    for (;;) {
      auto system = beside(gone, partners);
      auto plan = request_.wanted.size() > 1 ? placement::plan_side_by_side(system, uses)
                                             : kept(system, uses);
      if (plan) return ModelPlan{system, std::move(plan->placements), partners, gone};
      // Nobody else goes only to keep a partner.
      int next = partners ? -1 : next_of(gone);
      if (next < 0) return std::nullopt;
      gone.push_back(next);
    }
  }

  static std::optional<placement::AutoPlan> kept(const System& system,
                                                 const std::vector<placement::ModelUse>& uses) try {
    auto plan = placement::auto_plan(system, uses);
    return plan.kept ? std::optional(std::move(plan)) : std::nullopt;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::OutOfMemory) throw;
    return std::nullopt;
  }

  ModelPlan alone() {
    auto gone = request_.allocation ? std::vector<int>() : ejected(request_.wanted, false);
    auto before = gone.size();
    for (;;) {
      std::exception_ptr failure;
      auto plan = try_alone(gone, failure);
      if (plan && gone.size() > before + 1) return with_fewer(std::move(*plan), before);
      if (plan) return *plan;
      int next = next_of(gone);
      if (next < 0) std::rethrow_exception(failure);
      gone.push_back(next);
    }
  }

  /// Whoever turned out not to be in the way stays. Those below `first` went for speed.
  ModelPlan with_fewer(ModelPlan plan, std::size_t first) {
    for (std::size_t i = first; i + 1 < plan.gone.size();) {
      auto fewer = plan.gone;
      fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
      std::exception_ptr failure;
      if (auto better = try_alone(fewer, failure))
        plan = std::move(*better);
      else
        ++i;
    }
    return plan;
  }

  std::optional<ModelPlan> try_alone(const std::vector<int>& gone, std::exception_ptr& failure) {
    auto system = beside(gone, false);
    const auto& model = request_.wanted[0].model;
    try {
      auto placement = request_.allocation
                           ? placement::plan(system, model, *request_.allocation, request_.order)
                           : placement::auto_plan(system, model);
      return ModelPlan{std::move(system), {std::move(placement)}, false, gone};
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::OutOfMemory) throw;
      failure = std::current_exception();
      return std::nullopt;
    }
  }

  [[noreturn]] void refuse() {
    std::vector<int> gone;
    for (int next; (next = next_of(gone)) >= 0;) gone.push_back(next);
    Bytes activations = 0;
    auto system = beside(gone, false);
    // What the largest of them needs is told by the planner, of the memory that the others leave.
    for (const auto& use : request_.wanted) {
      placement::auto_plan(system, use.model);
      activations = std::max(activations, use.model.activation_bytes);
    }
    std::string names;
    for (const auto& use : request_.wanted)
      names += (names.empty() ? "'" : " and '") + use.model.name + "'";
    throw Error(ErrorKind::OutOfMemory, system.devices[system.compute].name,
                names + " are used at once and do not fit side by side");
  }

  /// Who gives way so that everything can be resident.
  std::vector<int> ejected(const std::vector<placement::ModelUse>& uses, bool partners) const {
    if (!request_.eject) return {};
    // A partner that needs more room for its work than these do makes it when its turn comes.
    Bytes needed = 0, activations = 0;
    for (const auto& use : uses) needed += use.model.bytes();
    for (const auto& use : request_.wanted)
      activations = std::max(activations, use.model.activation_bytes);
    int compute = request_.system.compute;
    Bytes free = request_.system.devices[compute].budget_bytes;
    std::vector<Holder> others = request_.holders;
    for (auto& holder : others) {
      if (partners && holder.partner >= 0) holder.bytes[compute] = 0;
      free -= holder.bytes[compute];
    }
    return to_go(others, compute, needed + activations - free);
  }

  /// The next that gives way where nothing fits: on the compute device first, then anywhere.
  int next_of(const std::vector<int>& gone) const {
    std::vector<Holder> left = request_.holders;
    for (int i : gone) left[i].pinned = true;
    int next = next_to_go(left, request_.system.compute);
    for (int d = 0; next < 0 && d < static_cast<int>(request_.system.devices.size()); ++d)
      next = next_to_go(left, d);
    return next;
  }

  System beside(const std::vector<int>& gone, bool partners) const {
    auto system = request_.system;
    for (int i = 0; i < static_cast<int>(request_.holders.size()); ++i) {
      const auto& holder = request_.holders[i];
      if (has(gone, i) || (partners && holder.partner >= 0)) continue;
      for (std::size_t d = 0; d < system.devices.size(); ++d)
        system.devices[d].budget_bytes =
            std::max<Bytes>(0, system.devices[d].budget_bytes - holder.bytes[d]);
    }
    return system;
  }

  const PlanRequest& request_;
};

}  // namespace

int next_to_go(const std::vector<Holder>& holders, int device) {
  int first = -1;
  for (int i = 0; i < static_cast<int>(holders.size()); ++i)
    if (may_go(holders[i], device) && (first < 0 || sooner(holders[i], holders[first]))) first = i;
  return first;
}

std::vector<int> to_go(const std::vector<Holder>& holders, int device, Bytes missing) {
  auto left = holders;
  std::vector<int> gone;
  for (int next; missing > 0 && (next = next_to_go(left, device)) >= 0;) {
    missing -= left[next].bytes[device];
    left[next].pinned = true;
    gone.push_back(next);
  }
  // What one of the later ones frees may be enough without an earlier one.
  std::erase_if(gone, [&](int i) {
    if (missing + holders[i].bytes[device] > 0) return false;
    missing += holders[i].bytes[device];
    return true;
  });
  return gone;
}

namespace {

bool has_idle(const placement::Model& model) {
  return std::any_of(model.blocks.begin(), model.blocks.end(),
                     [](const placement::Block& block) { return block.idle; });
}

ModelPlan without_idle(PlanRequest request) {
  for (auto* uses : {&request.wanted, &request.partners})
    for (auto& use : *uses) use.model = placement::without_idle(std::move(use.model));
  auto plan = Search(request).run();
  plan.idle_aside = true;
  return plan;
}

/// Of an allocation, where all idle blocks are among what is to rest in RAM: they are the cheapest that
/// could rest there.
std::optional<ModelPlan> idle_in_ram(const PlanRequest& request) try {
  const auto& model = request.wanted[0].model;
  const int host = request.system.find("cpu");
  const auto aside = placement::without_idle(model).aside_bytes();
  if (host < 0 || placement::quotas(request.system, model, *request.allocation)[host] < aside)
    return std::nullopt;
  return without_idle(request);
} catch (const Error& error) {
  if (error.kind() != ErrorKind::OutOfMemory) throw;
  return std::nullopt;
}

}  // namespace

ModelPlan plan_models(const PlanRequest& request) {
  if (std::none_of(request.wanted.begin(), request.wanted.end(),
                   [](const placement::ModelUse& use) { return has_idle(use.model); }))
    return Search(request).run();
  if (request.allocation) {
    auto plan = idle_in_ram(request);
    return plan ? std::move(*plan) : Search(request).run();
  }
  Bytes needed = 0, activations = 0;
  for (const auto& use : request.wanted) {
    needed += use.model.bytes();
    activations = std::max(activations, use.model.activation_bytes);
  }
  if (needed + activations <= request.system.devices[request.system.compute].budget_bytes) try {
      auto plan = Search(request).run();
      const bool whole =
          std::all_of(plan.placements.begin(), plan.placements.end(),
                      [](const placement::Placement& one) { return one.all_resident(); });
      if (whole && plan.gone.empty()) return plan;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::OutOfMemory) throw;
    }
  return without_idle(request);
}

bool is_tight(const placement::Placement& placement, const placement::System& system) {
  constexpr std::int64_t part = 3;
  return !placement.all_resident() &&
         part * placement.activation_bytes > system.devices[system.compute].budget_bytes;
}

}  // namespace distorch::streaming
