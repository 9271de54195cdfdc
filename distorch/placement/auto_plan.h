#pragma once
#include <optional>
#include <vector>

#include "distorch/placement/placement.h"

namespace distorch::placement {

/// The planner behind plain loaders: the placement with the shortest steady step (by Timeline)
/// whose peak stays within every budget. Chooses what is resident, what streams over which link,
/// what runs on the donor where it rests, and the slots of each ring. Never slower than
/// baselines(). Same input, same answer. Error(OutOfMemory) where even one block does not fit: names the
/// block, its bytes, the budget and what would fit.
Placement auto_plan(const System& system, const Model& model);

/// A model of a workflow and how often it is used.
struct ModelUse {
  Model model;
  double steps = 1;
};

/// Several models in the order of use.
struct AutoPlan {
  std::vector<Placement> placements;  // one per use
  /// True: all stay on their devices side by side, peak = all resident parts + all rings + the
  /// largest activations. False: they do not fit; each model has the device for itself and its
  /// resident part is loaded when its turn comes.
  bool kept = true;
  double total_s = 0;  // steps and, when not kept, loads
};
AutoPlan auto_plan(const System& system, const std::vector<ModelUse>& uses);
/// The same for models that have to be in place all at once; nothing where they do not fit so.
std::optional<AutoPlan> plan_side_by_side(const System& system, const std::vector<ModelUse>& uses);

}  // namespace distorch::placement
