#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace distorch::placement {

/// Bytes of a block that are copied together.
struct RingPiece {
  std::int64_t bytes = 0;
  /// How many blocks back, around the circle, stands the one whose release frees the last of their
  /// place: their copy may begin then.
  int after = 0;
  bool operator==(const RingPiece&) const = default;
};

/// Fixed places in one buffer for blocks that pass through it again and again in the same order.
/// Where their number is odd the places alternate between two rounds, since no odd circle splits
/// into two halves: entry `round * n + k` is that of block k.
struct RingLayout {
  int rounds = 1;
  std::vector<std::int64_t> offsets;  // bytes from the start of the buffer
  /// How many blocks back, around the circle, stands the nearest one whose place it takes: the last of its
  /// bytes are copied only after that one is released.
  std::vector<int> after;
  /// Of each entry, from first_piece[entry] to first_piece[entry + 1], in the order of their copies:
  /// one, or where the block just before has some of its place, all but that and then that.
  std::vector<RingPiece> pieces;
  std::vector<std::size_t> first_piece;
};

/// Places blocks one behind the other and from the start again where the next does not fit, so that
/// small blocks share the room of one large slot. Where there is room for all, each keeps its own
/// place. Blocks of one size get capacity / size slots; in a buffer of at least twice the largest no
/// block waits for the one just before it, in a smaller one for as few of its bytes as can be. `capacity`
/// must hold the largest. Fills `layout`, whose memory is used again.
void pack_ring(const std::vector<std::int64_t>& sizes, std::int64_t capacity, RingLayout& layout);

/// Makes one piece of each block of a layout that pack_ring() has filled: for those who copy nothing
/// until its whole place is free.
void join_pieces(const std::vector<std::int64_t>& sizes, RingLayout& layout);

}  // namespace distorch::placement
