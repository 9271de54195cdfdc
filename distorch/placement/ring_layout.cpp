#include "distorch/placement/ring_layout.h"

#include <cstddef>
#include <numeric>

namespace distorch::placement {
namespace {

struct Span {
  std::int64_t begin = 0, end = 0;
  bool overlaps(const Span& other) const { return begin < other.end && other.begin < end; }
};

// The last one has two neighbours: the one before it, and the first of the next round.
std::int64_t last_offset(std::int64_t size, std::int64_t capacity, const Span& before,
                         const Span& first) {
  std::int64_t fallback = 0;
  for (auto offset : {before.end, first.end, capacity - size, std::int64_t{0}}) {
    const Span place{offset, offset + size};
    if (place.end > capacity || place.overlaps(before)) continue;
    if (!place.overlaps(first)) return offset;
    fallback = offset;
  }
  return fallback;
}

}  // namespace

void pack_ring(const std::vector<std::int64_t>& sizes, std::int64_t capacity, RingLayout& layout) {
  const auto n = sizes.size();
  const auto total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  layout.rounds = n % 2 == 1 && n > 1 && total > capacity ? 2 : 1;
  const auto entries = n * static_cast<std::size_t>(layout.rounds);
  layout.offsets.assign(entries, 0);
  layout.after.resize(entries);
  const auto place = [&](std::size_t entry) {
    return Span{layout.offsets[entry], layout.offsets[entry] + sizes[entry % n]};
  };
  for (std::size_t k = 1; k < entries; ++k) {
    const auto before = place(k - 1);
    const auto size = sizes[k % n], next = sizes[(k + 1) % n];
    if (k + 1 == entries) {
      layout.offsets[k] = last_offset(size, capacity, before, place(0));
    } else if (before.end + size > capacity) {
      layout.offsets[k] = 0;
    } else if (before.end + size + next > capacity && before.end < next &&
               next + size <= capacity) {
      layout.offsets[k] = capacity - size;  // makes way for the next, which goes to the start
    } else {
      layout.offsets[k] = before.end;
    }
  }
  for (std::size_t k = 0; k < entries; ++k) {
    std::size_t back = 1;
    while (back < entries && !place(k).overlaps(place((k + entries - back) % entries))) ++back;
    layout.after[k] = static_cast<int>(back);
  }
}

}  // namespace distorch::placement
