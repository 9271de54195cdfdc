#pragma once
#include <cstdint>
#include <vector>

#include "distorch/base/link_clock.h"
#include "distorch/placement/placement.h"
#include "distorch/placement/ring_layout.h"

namespace distorch::placement {

/// A bar of the drawing. Times in seconds from the start of the first step.
struct Interval {
  enum class Kind { Compute, Copy, Activation, Wait };
  int lane = 0;  // index into Report::lanes
  Kind kind = Kind::Compute;
  int block = 0;
  int step = 0;
  double start_s = 0, end_s = 0;
};

/// Adds the ends of steps one by one; knows when they repeat. A step repeats when the links stand at
/// its end as they stood at the end of the one before: equal lengths alone would miss a link that
/// slowly loses its lead.
class Settling {
 public:
  /// `links`: when each link last finished or began a copy. True where no more steps are needed.
  bool add(double end_s, std::vector<double> links);
  double first_s() const { return ends_.front(); }
  /// Without settling (links that share can alternate) the mean over the later half.
  double step_s() const;
  bool settled() const { return settled_; }

 private:
  std::vector<double> ends_, before_;
  bool settled_ = false;
};

/// One thing the compute chain does: move the activation, wait for a copy, compute.
struct Stage {
  int block = 0;
  int device = 0;
  double seconds = 0;
  int ring = -1;        // waits for this ring's next copy
  int move_route = -1;  // moves the activation here first
  std::int64_t move_bytes = 0;
};

/// What streams from one donor, and how far it is.
struct ChainRing {
  int route = 0;
  std::int64_t capacity = 0;        // bytes
  std::vector<int> blocks;          // in the order they are copied, cyclic
  std::vector<double> copy_s;       // alone on its link, latency included
  std::vector<std::int64_t> sizes;  // bytes
  RingLayout layout;                // where they go, and whose place they take
  std::int64_t started = 0, copied = 0, released = 0;
  std::size_t piece = 0;  // of the block that is being copied: the next to start
  int transfer = -1;      // the one in flight
  double began_s = 0;
};

/// The state of an event-driven run: where the compute chain stands and since when.
struct ChainRun {
  int recorded = 0;  // steps whose bars are wanted
  Settling steps;
  std::vector<Interval> intervals;
  double last_wait_s = 0;  // of the last whole step

  double now = 0;
  std::size_t at = 0;  // the stage
  int step = 0;
  double compute_end = LinkClock::kNever;  // of the stage, once it computes
  int move = -1;                           // the activation's transfer in flight
  bool moved = false;                      // the activation is where the stage needs it
  double move_began = 0, asked = 0, wait = 0;

  void record(int lane, Interval::Kind kind, int block, int of_step, double start, double end) {
    if (of_step < recorded && end > start)
      intervals.push_back({lane, kind, block, of_step, start, end});
  }
};

/// A model under a placement as stages and rings on a clock of links, which others may use too.
class Chain {
 public:
  Chain(const System& system, const Model& model, LinkClock& clock);

  /// False where it cannot run as the placement wants.
  bool prepare(const Placement& placement);
  const std::vector<Stage>& stages() const { return stages_; }
  const std::vector<ChainRing>& rings() const { return rings_; }
  /// No schedule of this placement is faster.
  double bound_s() const;

  /// Starts the copies whose places are free, and what the stage can begin at this moment.
  void begin(ChainRun& run);
  /// A transfer of this chain, or of another, has ended.
  void end_transfer(ChainRun& run, int transfer);
  /// True where that was the last step that is needed.
  bool end_stage(ChainRun& run);

 private:
  /// Of blocks in a row on one donor: each one's results go back to the compute device while the
  /// next one computes. Seconds since the first began: computed, and until those copies are done.
  struct BackCopies {
    double ran_s = 0, copied_s = 0;
  };
  void add_back_copy(BackCopies& copies, int route, std::int64_t bytes) const;
  /// Bytes of them that are still to go when the last block is done: its own results wait for these.
  std::int64_t left_of(const BackCopies& copies, int from, int to);
  std::int64_t taken_bytes(const Placement& placement, std::size_t block) const;
  int route(int from, int to);
  void start_copies(double now);

  const System& system_;
  const Model& model_;
  LinkClock& clock_;
  std::vector<int> routes_;  // [from * devices + to]: LinkClock's number, -1 none, -2 not asked yet
  std::vector<Stage> stages_;
  std::vector<ChainRing> rings_;
};

}  // namespace distorch::placement
