#pragma once
#include <vector>

#include "distorch/device/cuda/nvrtc.h"

/// Products of whole numbers of 8 bits as CUDA source, each compiled by define_of(dtype) of what is
/// written and by its tile's defines.
namespace distorch::quant::cuda {

/// int8_rows(x, y, scales, rows, width, most, floor): rows x [rows, width] as whole numbers. A block
/// a row, -DPASSES=1, 2 or 4 times 16 numbers a thread, which read once; blocks from `rows` on
/// write zeros. -DROTATED=1: in groups of 256, by the same sums as kernel "rotated"; then
/// kRowsRoom bytes of shared memory a warp, in any case 128.
const device::cuda::KernelSource& rows_source();
constexpr int kRowsRoom = 2 * 272 * 4;

/// int8_product(a, b, y, rows, scales, bias, m, n, k, stride, one, group): y [m, n] in rows `stride`
/// apart = (a [m, k] · b [n, k]ᵀ) · (rows [m] · scales [n or, with `one`, 1]) + bias [n or null].
/// A block of 256 threads has 128 rows and -DCOLUMNS=128 or 256, in -DSTAGES steps of 64 numbers at a
/// time; `group`: so many tiles of rows are done side by side. From sm_75 on.
const device::cuda::KernelSource& product_source();
/// int8_hopper(map of a, map of b, then as above, sums, arrived, parts): warpgroups multiply what another brings. A block
/// has 64 · -DGROUPS (2 or 3) rows and -DCOLUMNS (128, 192 or 256), in -DSTAGES steps of 128 numbers
/// at a time, and takes tile after tile. -DLAG: so many steps a warpgroup begins after another. -DCLUSTER=2: two blocks above each other share b. For
/// sm_90a. A map's boxes have 128 numbers of 64 · GROUPS rows, of b COLUMNS / CLUSTER.
/// With `parts` > 1 the tiles that are left when each cluster has had as many are shared by so many
/// clusters, through `sums` [tile, block of the cluster, warpgroup, part, COLUMNS / 8, 128] of 16
/// bytes and zeros `arrived` [tile, block of the cluster, warpgroup].
const device::cuda::KernelSource& hopper_source();

}  // namespace distorch::quant::cuda
