#pragma once
#include <vector>

#include "distorch/placement/auto_plan.h"

namespace distorch::placement {

/// The plans that the automatic one must never lose to, and what both need; not for use outside
/// this folder.

/// Whether a placement keeps every budget and no more than `resident_limit` rests on the compute
/// device. A donor that runs blocks needs room for the activations too.
bool fits(const System& system, const Model& model, const Placement& placement,
          std::int64_t resident_limit);

/// A device that can send to the compute device.
struct Donor {
  int device = 0;  // of the System
  int route = 0;   // of the LinkClock
  double bytes_per_s = 0;
};
/// Fastest link first.
std::vector<Donor> donors_of(const System& system, LinkClock& clock);

/// baselines() for a system and a model that lack nothing.
std::vector<Named> plans_of_others(const System& system, const Model& model);

}  // namespace distorch::placement
