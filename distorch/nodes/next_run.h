#pragma once
#include <optional>

#include "distorch/graph/call.h"
#include "distorch/graph/upcoming.h"
#include "distorch/nodes/sample_run.h"

namespace distorch::nodes {

/// Which nodes are quick (what opens, patches and puts together models, guiders, sigmas) and which
/// take long (what samples): graph/pace.h.
graph::Paces& paces();

/// A run of a model that follows in the same prompt.
struct NextRun {
  ModelGuider guider;
  int steps = 0;
};

/// The next one behind the node that runs, with other weights than `model`; nothing where none is
/// known yet, or where the next one has the same weights.
std::optional<NextRun> next_run(graph::Call& call, const Model& model);

}  // namespace distorch::nodes
