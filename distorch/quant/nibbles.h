#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace distorch::quant {

/// Bytes [N, K/2] (int8 or uint8) as whole numbers int8 [N, K], two a byte, the low half first, by
/// the table of each group of `group` numbers of a row: level · scale, rounded half to even and kept
/// within ±127. `scales` float32 [N, K / group]; `levels` float32 [16]. distorch::nibbles_by_table.
at::Tensor nibbles_by_table(const at::Tensor& bytes, const at::Tensor& scales,
                            const at::Tensor& levels, std::int64_t group);

/// The same as signed numbers -8 .. 7 as they lie: distorch::signed_nibbles.
at::Tensor signed_nibbles(const at::Tensor& bytes);

/// The shape of the numbers that lie in bytes of this shape, two in each.
std::vector<std::int64_t> nibble_shape(std::vector<std::int64_t> bytes);

}  // namespace distorch::quant
