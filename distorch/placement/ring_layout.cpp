#include "distorch/placement/ring_layout.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <optional>
#include <utility>

namespace distorch::placement {
namespace {

struct Span {
  std::int64_t begin = 0, end = 0;
  std::int64_t shared(const Span& other) const {
    return std::max<std::int64_t>(0, std::min(end, other.end) - std::max(begin, other.begin));
  }
  bool overlaps(const Span& other) const { return shared(other) > 0; }
};

// The last one has two neighbours: the one before it, and the first of the next round.
std::int64_t last_offset(std::int64_t size, std::int64_t capacity, const Span& before,
                         const Span& first) {
  std::int64_t best = 0;
  std::optional<std::pair<std::int64_t, std::int64_t>> least;  // that it takes of either
  for (auto offset : {before.end, first.end, capacity - size, std::int64_t{0}}) {
    const Span place{offset, offset + size};
    if (place.end > capacity) continue;
    const std::pair taken{place.shared(before), place.shared(first)};
    if (least && taken >= *least) continue;
    least = taken;
    best = offset;
  }
  return best;
}

// What of a block does not lie where the one just before it lies comes before what does.
void find_pieces(const std::vector<std::int64_t>& sizes, RingLayout& layout) {
  const auto n = sizes.size(), entries = layout.offsets.size();
  const auto place = [&](std::size_t entry) {
    return Span{layout.offsets[entry], layout.offsets[entry] + sizes[entry % n]};
  };
  // How many blocks back stands the nearest one, from `back` on, that takes of either span.
  const auto nearest = [&](std::size_t k, std::size_t back, const Span& one, const Span& other) {
    for (; back < entries; ++back) {
      const auto earlier = place((k + entries - back) % entries);
      if (earlier.overlaps(one) || earlier.overlaps(other)) break;
    }
    return static_cast<int>(back);
  };
  layout.pieces.clear();
  layout.first_piece.clear();
  for (std::size_t k = 0; k < entries; ++k) {
    const Span whole = place(k);
    layout.first_piece.push_back(layout.pieces.size());
    layout.after[k] = nearest(k, 1, whole, whole);
    std::int64_t waits = whole.end - whole.begin;
    if (layout.after[k] == 1 && entries > 1) {
      const Span before = place((k + entries - 1) % entries);
      const Span front{whole.begin, std::max(whole.begin, before.begin)};
      const Span back{std::min(whole.end, before.end), whole.end};
      waits = whole.shared(before);
      if (const auto rest = whole.end - whole.begin - waits; rest > 0)
        layout.pieces.push_back({rest, nearest(k, 2, front, back)});
    }
    layout.pieces.push_back({waits, layout.after[k]});
  }
  layout.first_piece.push_back(layout.pieces.size());
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
      // Where it has to take of the place of the block just before, of as little as can be.
      const Span start{0, size}, end{capacity - size, capacity};
      layout.offsets[k] = end.shared(before) < start.shared(before) ? end.begin : 0;
    } else if (before.end + size + next > capacity && before.end < next &&
               next + size <= capacity) {
      layout.offsets[k] = capacity - size;  // makes way for the next, which goes to the start
    } else {
      layout.offsets[k] = before.end;
    }
  }
  find_pieces(sizes, layout);
}

void join_pieces(const std::vector<std::int64_t>& sizes, RingLayout& layout) {
  layout.pieces.clear();
  for (std::size_t k = 0; k < layout.after.size(); ++k) {
    layout.pieces.push_back({sizes[k % sizes.size()], layout.after[k]});
    layout.first_piece[k + 1] = k + 1;
  }
}

}  // namespace distorch::placement
