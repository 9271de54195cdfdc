#pragma once
#include <optional>
#include <string>
#include <vector>

#include "distorch/placement/placement.h"

namespace distorch::placement {

/// A way in which other accelerators help a model, and the best step of that way.
struct Alternative {
  std::string name;                    // "streaming from them"
  double step_s = 0;                   // infinity where it does not fit
  std::optional<Placement> placement;  // none where it does not fit
};

/// What else could be done with other accelerators of the system: nothing, weights streamed from
/// their memory, a layer split whose blocks run where they rest. Each planned as auto_plan() does
/// it. Empty where there is no other one with memory to lend.
std::vector<Alternative> alternatives(const System& system, const Model& model);

/// What a placement does with other accelerators and what alternatives would take, one sentence:
/// "12 blocks run on cuda:1 and 3 stream from there, 0.21 s a step; without it 0.44 s, ...". Empty
/// where the placement uses none.
std::string reason(const System& system, const Model& model, const Placement& placement);

}  // namespace distorch::placement
