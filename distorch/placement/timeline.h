#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "distorch/placement/timeline_chain.h"

namespace distorch::placement {

struct Lane {
  std::string name;        // "cuda:0" (compute) or "cpu -> cuda:0" (link)
  double busy_s = 0;       // in one steady step
  std::int64_t bytes = 0;  // carried in one steady step; 0 for compute
};

/// What one step of a model costs under a placement.
struct Report {
  double step_s = 0;     // steady state: the ring already holds the first blocks of the next step
  double first_s = 0;    // the first step: rings empty, every resident block in its place
  double compute_s = 0;  // computing, on whatever device
  double wait_s = 0;     // steady step: computing nothing, waiting for a copy or an activation
  double bound_s = 0;  // max(compute, busiest link alone): no schedule of this placement is faster
  std::int64_t streamed_bytes = 0;
  std::vector<Lane> lanes;
  std::vector<Interval> intervals;  // of the steps recorded
};

/// The clock of one model on one machine. Rules: the copy of a piece of a block starts when its place
/// in the ring is free (ring_layout.h) and its link has finished the copy before it; a place is free
/// again when the block that used it has been computed; a host that computes, or is late, copies a block at
/// once, when all of its place is free; a block computes when the one before it is done and its weights are
/// there; the order of copies is cyclic over steps. Links share as LinkClock says.
/// Event-driven and exact for these rules. Keeps references: system and model must outlive it.
class Timeline {
 public:
  Timeline(const System& system, const Model& model);
  ~Timeline();

  /// Seconds of a steady step; infinity where a block cannot run or stream as the placement wants.
  /// Fast: no allocation of note.
  double step_s(const Placement& placement);
  /// Work done by step_s() so far, in units of about 5 ns: lets a search stop at the same place on
  /// every machine.
  std::int64_t effort() const { return effort_; }
  /// All figures, and the bars of `recorded` steps.
  Report report(const Placement& placement, int recorded = 2);

 private:
  bool prepare(const Placement& placement);
  bool uncontended();
  double run_alone();
  double run_events(ChainRun& run);
  void fill_lanes(Report& report);

  const System& system_;
  const Model& model_;
  LinkClock clock_;
  Chain chain_;
  std::vector<double> release_;
  std::int64_t effort_ = 0;
  std::map<std::vector<int>, bool> alone_;  // sets of routes -> nothing shared
};

/// A model on one of several compute devices that run at the same time: a copy of the same model, or
/// another one. The placement says which device computes.
struct Replica {
  const Model* model = nullptr;
  const Placement* placement = nullptr;
};
/// Seconds of a steady step of each while all run, by the rules of Timeline: links and roots that
/// several stream over are shared. Infinity for all where one cannot run as its placement wants.
std::vector<double> steps_together(const System& system, const std::vector<Replica>& replicas);

}  // namespace distorch::placement
