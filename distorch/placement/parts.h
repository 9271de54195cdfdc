#pragma once
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "distorch/placement/timeline.h"

namespace distorch::placement {

/// Placements in which blocks rest in part, weight by weight; used by plan() and by auto_plan().

/// Slots of a ring that are fewer than two, the most first: where a block computes for a shorter time than
/// the next one's copy takes, the room of that one's beginning is enough.
inline constexpr double kSlimRings[] = {1.75, 1.5, 1.375, 1.25, 1.125};

/// Whether any block has parts that can be placed apart.
bool has_parts(const Model& model);

/// Which blocks stream, and how much of each.
struct PartPattern {
  int stride = 1;         // every how manieth block streams
  bool by_bytes = false;  // in proportion to the blocks' bytes, else to their seconds
  std::int64_t most = std::numeric_limits<std::int64_t>::max();  // of one block, bytes
};

/// Homes by which about quotas[d] bytes stream from every donor d, spread over the step by the
/// pattern: what one block lacks or has too much is made up for by the next. Small weights stay.
std::vector<Home> spread_parts(const System& system, const Model& model,
                               const std::vector<std::int64_t>& quotas, const PartPattern& pattern);

/// Moves parts between the compute device and donors until no donor is further from its quota than
/// the smallest part that can move.
void settle_parts(const System& system, const Model& model, const std::vector<std::int64_t>& quotas,
                  std::vector<Home>& homes);

/// Lets parts of streamed blocks rest, the largest first, as long as there is room for one: no more
/// than the budget of the compute device, nor than `resident_limit` of weights there.
Placement filled_up(const System& system, const Model& model, Placement placement,
                    std::int64_t resident_limit);

/// How many bytes each device is to stream where so many do in all; nothing where there is no room.
using ShareOut = std::function<std::optional<std::vector<std::int64_t>>(std::int64_t streamed)>;
using Consider = std::function<void(Placement)>;

/// Makes the placements of several patterns that fill the compute device's budget (and hold no more
/// than `resident_limit` of weights there) and hands them to `consider`. Adds its work to `effort`.
void part_plans(const System& system, const Model& model, std::int64_t resident_limit, double slots,
                const ShareOut& share_out, const Consider& consider, std::int64_t& effort);

/// Exchanges a part that streams for one that rests in a block nearby as long as that makes the step
/// shorter, `tries` clock runs at most. `exact`: only parts of equal size. Returns its step.
double improve_parts(const System& system, const Model& model, std::int64_t resident_limit,
                     bool exact, int tries, Timeline& clock, Placement& placement);

/// The placement with the shortest step that meets the quotas to the last small weight: `start`,
/// which is of whole blocks, made exact, or an even spread of parts. Where that is more than the
/// budget: as much of it as there is room for beside `start`, or nothing.
std::optional<Placement> exact_parts(const System& system, const Model& model,
                                     const std::vector<std::int64_t>& quotas,
                                     const std::optional<Placement>& start);

}  // namespace distorch::placement
