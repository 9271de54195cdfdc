#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "distorch/quant/int8.h"

/// Products of whole numbers by kernels of our own (int8_sources.h).
namespace distorch::quant::cuda {

/// What one block of threads computes at a time, and by which kernel.
struct Tile {
  int rows = 128, columns = 128;
  int stages = 4;
  int cluster = 1;         // blocks that share what they read
  bool is_hopper = false;  // for capability 9.0 alone
  int lag = 0;             // steps that warpgroups are apart
  bool operator==(const Tile&) const = default;
};
std::string name_of(const Tile& tile);
/// The compiler's options for its kernel beside the dtype's.
std::string defines_of(const Tile& tile);
/// What of the multiprocessor's memory a block has.
std::int64_t shared_bytes(const Tile& tile);

/// In which order blocks take tiles; 0: as is usual.
struct Order {
  int group = 0;  // tiles of rows side by side
  int parts = 0;  // of each tile that is left when every block has had as many; 1: none is shared
};
/// Into how many parts tiles that are left are best cut, where `at_once` of `count` tiles of `steps`
/// steps are worked on at a time.
int best_parts(std::int64_t count, std::int64_t at_once, std::int64_t steps);

/// All that a device of this capability runs, as 90 for 9.0; none: torch's operations are better.
const std::vector<Tile>& tiles_for(int capability);
/// The one that is expected to be the fastest for a product [m, k] · [n, k]ᵀ. Every one of them gives
/// the same bits.
Tile best_tile(const std::vector<Tile>& tiles, int multiprocessors, std::int64_t m, std::int64_t n,
               std::int64_t k);

/// A product and what becomes of its sums.
struct Int8Product {
  at::Tensor a, b;    // int8 [M, K], [N, K], contiguous
  at::Tensor rows;    // float32 [M]
  at::Tensor scales;  // float32 [N] or [1]
  at::Tensor bias;    // [N] or undefined
};
/// y [M, N] in any float type = (a · bᵀ) · (rows · scales) + bias, each step of it rounded to float32;
/// y's rows may lie apart, in a larger tensor. False, with y untouched, where shapes, alignments or the device are not what the kernel
/// is for.
bool multiply(const at::Tensor& y, const Int8Product& product, const Tile& tile,
              const Order& order = {});
/// The same by best_tile(): y [M, N] of `dtype`; undefined where no kernel is for it.
at::Tensor multiplied(const Int8Product& product, at::ScalarType dtype);

/// As quant::whole_rows(), by one kernel that reads x once: rows of groups of 256, or not rotated, of
/// at most 32768 numbers. `padded`: as cuda::whole_rows(). Undefined where x is not so.
std::pair<at::Tensor, at::Tensor> int8_rows(const at::Tensor& x, std::int64_t padded, int rotated,
                                            const Levels& levels);

}  // namespace distorch::quant::cuda
