#pragma once
#include <algorithm>
#include <cstdint>

#include "distorch/graph/call.h"

namespace distorch::nodes {

/// Where a batch of `items` is cut: the call's "batch_index", counted from the end where it is
/// negative, and never outside of the batch.
inline std::int64_t place_in_batch(const graph::Call& call, std::int64_t items) {
  auto index = call.integer("batch_index");
  return std::clamp<std::int64_t>(index < 0 ? index + items : index, 0, items - 1);
}

}  // namespace distorch::nodes
