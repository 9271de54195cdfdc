#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "distorch/placement/placement.h"

namespace distorch::placement {

/// A plan that others make, to compare with.
struct Named {
  std::string name;
  Placement placement;
};
/// The plans that the automatic one must never lose to: everything streamed (over the fastest
/// link), the original's tail, an even spread, a layer split that runs each block where it rests.
/// Those that do not fit are left out. Links and seconds that nobody knows are assumed as
/// auto_plan() does.
std::vector<Named> baselines(const System& system, const Model& model);

// What the search of auto_plan() needs besides; not for use outside this folder.

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
/// For a model of so many bytes, fastest link first; the disk only where it does not fit into RAM:
/// what comes from there passes through it, and is staged by a thread.
std::vector<Donor> donors_of(const System& system, LinkClock& clock, std::int64_t bytes);

}  // namespace distorch::placement
