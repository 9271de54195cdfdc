#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "distorch/placement/auto_plan.h"
#include "distorch/placement/plan.h"

namespace distorch::streaming {

/// Another model that holds memory while one is planned.
struct Holder {
  std::vector<std::int64_t> bytes;  // by device of the system
  bool pinned = false;              // in use: it keeps what it has
  bool current = false;    // a running prompt has used it: it goes after those that none has
  std::uint64_t used = 0;  // when last; smaller is longer ago
  int partner = -1;        // its place among PlanRequest::partners
};

/// The one to give way first among those that hold memory on `device`; -1 where none may.
int next_to_go(const std::vector<Holder>& holders, int device);

/// Those that have to give way so that `missing` bytes of `device` come free, in the order of
/// next_to_go(), none that could stay. Where all together hold less: all.
std::vector<int> to_go(const std::vector<Holder>& holders, int device, std::int64_t missing);

/// Models to plan, and what stands around them.
struct PlanRequest {
  placement::System system;                 // budgets before anybody holds anything
  std::vector<placement::ModelUse> wanted;  // to be in place all at once
  /// Used in turn with a wanted one: all share the memory side by side where that is faster in the
  /// end than to replace each other.
  std::vector<placement::ModelUse> partners;
  std::optional<placement::Allocation> allocation;  // of the one wanted model; none: a free plan
  placement::Order order = placement::Order::Spread;
  bool eject = true;  // others give way for speed too; false: only where nothing fits otherwise
  std::vector<Holder> holders;
};

struct ModelPlan {
  placement::System system;                      // budgets less what others hold that stay
  std::vector<placement::Placement> placements;  // of the wanted ones, then of the partners
  bool together = false;                         // partners are planned too
  std::vector<int> gone;                         // holders that give way
  bool idle_aside = false;                       // of placement::without_idle() of all models
};

/// The plan, and who gives way for it: nobody who is not in the way. Where not everything can be
/// resident beside the others, or an allocation leaves at least them to RAM, idle blocks are aside.
/// Decides only.
/// Error(OutOfMemory), Error(Usage) as the planners do: then nobody has to do anything.
ModelPlan plan_models(const PlanRequest& request);

/// Whether activations take so much of the compute device that holes between them would leave no
/// room: more than a third of what the model may use there, with weights that stream.
bool is_tight(const placement::Placement& placement, const placement::System& system);

}  // namespace distorch::streaming
