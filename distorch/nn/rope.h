#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "distorch/device/token_ops.h"

namespace distorch::nn {

/// Angles of rotary positions; `halves` says which numbers of a head are a pair.
/// Source: Su et al. 2021.
using RopeTable = device::RopeTable;

/// The table of tokens that lie on several axes (text index, row, column, ...): ids [1 or B, L, axes]
/// float32; axis a turns `widths[a]` numbers of each head, its pair i by id * theta^(-2i / widths[a]).
/// The angles are computed in float64. On the device of the ids.
RopeTable rope_table(const at::Tensor& ids, const std::vector<std::int64_t>& widths, double theta,
                     bool halves = false);

/// Heads x [B, L, H, D] turned by their positions; D is twice the table's width. A norm before it
/// costs nothing more: RmsNorm::heads.
at::Tensor apply_rope(const at::Tensor& x, const RopeTable& rope);

}  // namespace distorch::nn
