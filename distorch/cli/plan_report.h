#pragma once
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "distorch/graph/value.h"
#include "distorch/placement/timeline.h"
#include "distorch/streaming/engine.h"

namespace distorch::cli {

/// A planned run with its figures, and what the free planner would make of it.
struct Priced {
  const streaming::PlannedRun* run;
  placement::Report report;
  placement::Placement best;
  double best_step_s;
  int times = 1;  // that the workflow has such a run, as of a text encoder for every prompt
  std::vector<std::size_t> runs;  // which of the planned runs these are

  /// One of these runs, all of its steps; infinite where its speed is not known, 0 where it computes
  /// while another one does.
  double seconds() const;
  /// What other accelerators do for it and why (placement/alternatives.h); "" where they do nothing.
  std::string reason() const;
};

/// Every run that the workflow makes; equal ones once, where the first of them is. They point into
/// `runs`.
std::vector<Priced> price_all(const std::vector<streaming::PlannedRun>& runs);

const char* word_for(placement::How how);

/// Bytes and blocks by device and way of use.
struct Held {
  std::int64_t bytes = 0;
  int blocks = 0;
};
std::map<std::pair<int, placement::How>, Held> held_of(const Priced& priced);

graph::Json as_json(const Priced& priced);

}  // namespace distorch::cli
