#pragma once
#include <cstdint>
#include <vector>

#include "distorch/placement/timeline.h"

namespace distorch::placement {

/// Which blocks go where when the bytes of every device are given; used by plan() and by
/// auto_plan().

/// The clock needs a figure everywhere: donors without a link get one of 12 GB/s, blocks without
/// seconds on the compute device get theirs from their bytes, so that where nothing is known the
/// spread is even.
System with_links(System system);
/// with_links() where no link at all is known, else the system as it is: devices apart stay apart.
System reachable(const System& system);
Model with_seconds(Model model, int compute);

/// Seconds that pass while each block runs; bytes where nothing is known of the seconds.
std::vector<double> durations(const System& system, const Model& model);

/// True for what stays on the compute device: marked so, or below 0.01 % of the model.
std::vector<bool> pinned_blocks(const Model& model);

/// What must hold for homes.
struct Limits {
  std::vector<std::int64_t> quotas;   // per device, sum = model bytes
  std::vector<std::int64_t> at_most;  // per device: no more than this rests there
};

/// Homes that meet the quotas within one block, offloaded blocks evenly in time between the
/// resident ones. `shift` in [0, 1) moves the pattern: 0 puts an offloaded block late, near 1
/// early.
std::vector<Home> spread_homes(const System& system, const Model& model, const Limits& limits,
                               double shift);

/// Moves blocks between devices until no device is further from its quota than the largest block
/// that can move and none is above its limit, as far as whole blocks allow.
void repair(const System& system, const Model& model, const Limits& limits,
            std::vector<Home>& homes);

/// The best of several spreads by Timeline, improved by exchanging neighbours. Keeps the quotas.
/// `tries` bounds the clock runs; their effort() is added to `effort` where given.
Placement best_spread(const System& system, const Model& model, const Limits& limits, double slots,
                      int tries, std::int64_t* effort = nullptr);

/// The original's order: tail to head, accelerators by name first, then cpu, then disk; what fits
/// nowhere stays on compute.
std::vector<Home> tail_homes(const System& system, const Model& model,
                             const std::vector<std::int64_t>& quotas);

/// Bytes that rest on each device.
std::vector<std::int64_t> bytes_by_device(const System& system, const Model& model,
                                          const std::vector<Home>& homes);

/// Device numbers: accelerators by name, then cpu, then disk.
std::vector<int> by_name(const System& system);

}  // namespace distorch::placement
