#pragma once
#include <cstdint>
#include <vector>

#include "distorch/placement/allocation_string.h"
#include "distorch/placement/placement.h"

namespace distorch::placement {

enum class Order {
  Spread,  // offloaded blocks evenly between resident ones, so that transfers hide behind compute
  Tail     // the order of DisTorch2: tail to head, accelerators by name first, cpu last
};

/// Bytes asked of every device, their sum is the model's bytes. From an expert string or virtual
/// VRAM (docs/placement.md). What is aside counts as resting in RAM, as far as that is asked for, and is not
/// in the sum. Error(Usage): device that is not there; Error(OutOfMemory): more than
/// its budget, both numbers named.
std::vector<std::int64_t> quotas(const System& system, const Model& model,
                                 const Allocation& allocation);

/// The placement of an allocation: every device within one block of its quota (pinned blocks
/// apart), where blocks have parts within its smallest ones (parts.h), peak within the budget. Two slots per ring, less where two do not fit, more (up to 16)
/// where the budget has room and the step gets at least 0.3 % shorter. Every offloaded
/// block is Streamed. Links and seconds that nobody knows are assumed, see spread.h. Throws as
/// quotas() does; Error(Usage) where allocation.compute is not the system's; Error(OutOfMemory)
/// where weights, rings and activations exceed the compute device's budget, with what is needed,
/// what there is and what would fit.
Placement plan(const System& system, const Model& model, const Allocation& allocation,
               Order order = Order::Spread);

}  // namespace distorch::placement
