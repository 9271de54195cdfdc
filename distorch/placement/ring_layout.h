#pragma once
#include <cstdint>
#include <vector>

namespace distorch::placement {

/// Fixed places in one buffer for blocks that pass through it again and again in the same order.
/// Where their number is odd the places alternate between two rounds, since no odd circle splits
/// into two halves: entry `round * n + k` is that of block k.
struct RingLayout {
  int rounds = 1;
  std::vector<std::int64_t> offsets;  // bytes from the start of the buffer
  /// How many blocks back, around the circle, stands the nearest one whose place it takes: its copy
  /// may begin once that one is released.
  std::vector<int> after;
};

/// Places blocks one behind the other and from the start again where the next does not fit, so that
/// small blocks share the room of one large slot. Where there is room for all, each keeps its own
/// place. Blocks of one size get capacity / size slots; in
/// a buffer of at least twice the largest no block waits for the one just before it. `capacity`
/// must hold the largest. Fills `layout`, whose memory is used again.
void pack_ring(const std::vector<std::int64_t>& sizes, std::int64_t capacity, RingLayout& layout);

}  // namespace distorch::placement
