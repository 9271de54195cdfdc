#include "distorch/quant/int8_sources.h"

#include <string>

#include "distorch/device/cuda/numbers.h"
#include "distorch/device/cuda/tensor_cores.h"

namespace distorch::quant::cuda {
namespace {

using device::cuda::KernelSource;
using device::cuda::kNumbers;

// 16 threads have a group of 256 numbers: first each 16 in a row, then, exchanged through shared
// memory, every 16th; so two pairs of bits of a number's place are in a thread's registers each time.
// Bytes are exchanged by fours of lanes, so that words are written.
constexpr const char* kRows = R"(
__device__ __forceinline__ void by_fours(float (&v)[16], int step) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    if (i & (3 * step)) continue;
    const float a = v[i], b = v[i + step], c = v[i + 2 * step], d = v[i + 3 * step];
    const float half = 0.5f * ((a + b) + (c + d));
    v[i] = half - d;
    v[i + step] = half - c;
    v[i + 2 * step] = half - b;
    v[i + 3 * step] = half - a;
  }
}
// Fours of a row lie at places of their own, so that neither writing nor reading waits for a bank.
__device__ __forceinline__ void exchange(float (&v)[16], float* room) {
  const int own = threadIdx.x % 16;
  float* group = room + threadIdx.x / 16 * 272;
#pragma unroll
  for (int four = 0; four < 4; ++four)
    *(float4*)(group + 16 * own + 4 * (four ^ ((own >> 1) & 3))) =
        make_float4(v[4 * four], v[4 * four + 1], v[4 * four + 2], v[4 * four + 3]);
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 16; ++i)
    v[i] = group[16 * i + 4 * ((own >> 2) ^ ((i >> 1) & 3)) + own % 4];
  __syncwarp();
}
__device__ __forceinline__ unsigned four_bytes(unsigned a, unsigned b, unsigned c, unsigned d) {
  return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}
// Lane i of four has a word of four bytes; it receives byte i of each, in the lanes' order.
__device__ __forceinline__ unsigned turned_bytes(unsigned word) {
  const unsigned lane = threadIdx.x;
  const unsigned beside = __shfl_xor_sync(0xffffffffu, word, 1);
  word = __byte_perm(word, beside, lane & 1 ? 0x3715 : 0x6240);
  const unsigned across = __shfl_xor_sync(0xffffffffu, word, 2);
  return __byte_perm(word, across, lane & 2 ? 0x3276 : 0x5410);
}
// v / scale rounded as a division is, then to a whole number half to even: its lowest byte.
__device__ __forceinline__ unsigned whole(float v, float scale, float inverse) {
  const float q = __fmul_rn(v, inverse);
  const float exact = __fmaf_rn(__fmaf_rn(-q, scale, v), inverse, q);
  return __float_as_uint(__fadd_rn(exact, 12582912.0f));
}
__device__ __forceinline__ void read_sixteen(const Number* x, float (&v)[16]) {
  const Eight low = ((const Eight*)x)[0], high = ((const Eight*)x)[1];
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    v[j] = up(low.v[j]);
    v[j + 8] = up(high.v[j]);
  }
}
// The largest of a block's, of which every warp's lanes have their own.
__device__ __forceinline__ unsigned largest_of(unsigned own, unsigned* partial) {
  for (int step = 16; step > 0; step /= 2)
    own = max(own, __shfl_xor_sync(0xffffffffu, own, step));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = own;
  __syncthreads();
  for (int i = 0; i < blockDim.x / 32; ++i) own = max(own, partial[i]);
  return own;
}

extern "C" __global__ void int8_rows(const Number* x, signed char* y, float* scales, int rows,
                                     int width, int most, float floor) {
  extern __shared__ float room[];
  __shared__ unsigned partial[32];
  const int row = blockIdx.x;
  signed char* to = y + (long long)row * width;
  if (row >= rows) {
    for (int at = 16 * threadIdx.x; at < width; at += 16 * blockDim.x)
      *(uint4*)(to + at) = make_uint4(0, 0, 0, 0);
    return;
  }
  const Number* from = x + (long long)row * width;
  float v[PASSES][16];
  unsigned largest = 0;
#pragma unroll
  for (int p = 0; p < PASSES; ++p) {
    const int at = 16 * (p * blockDim.x + threadIdx.x);
#pragma unroll
    for (int i = 0; i < 16; ++i) v[p][i] = 0;
    if (at < width) read_sixteen(from + at, v[p]);
    if (ROTATED) {
      by_fours(v[p], 1);
      by_fours(v[p], 4);
      exchange(v[p], room);
      by_fours(v[p], 1);
      by_fours(v[p], 4);
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) largest = max(largest, __float_as_uint(v[p][i]) & 0x7fffffffu);
  }
  largest = largest_of(largest, partial);
  const bool strange = largest >= 0x7f800000u;
  float scale = strange ? 1.0f : __fdiv_rn(__uint_as_float(largest), (float)most);
  if (scale < floor) scale = floor;
  if (threadIdx.x == 0) scales[row] = strange ? __uint_as_float(0x7fc00000u) : scale;
  const float inverse = __frcp_rn(scale);
#pragma unroll
  for (int p = 0; p < PASSES; ++p) {
    const int at = 16 * (p * blockDim.x + threadIdx.x);
    unsigned words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      unsigned q[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) q[i] = strange ? 0 : whole(v[p][4 * w + i], scale, inverse);
      words[w] = four_bytes(q[0], q[1], q[2], q[3]);
      if (ROTATED) words[w] = turned_bytes(words[w]);
    }
    if (at >= width) continue;
    const int own = threadIdx.x % 16;
    if (ROTATED) {
#pragma unroll
      for (int w = 0; w < 4; ++w)
        *(unsigned*)(to + (at - 16 * own) + 16 * (4 * w + own % 4) + own / 4 * 4) = words[w];
    } else {
      *(uint4*)(to + at) = make_uint4(words[0], words[1], words[2], words[3]);
    }
  }
}
)";

// Where a tile lies: `group` tiles of rows are done side by side, column after column, so that what
// multiprocessors read at a time is near a square. And what becomes of a warp's sums: 16 rows, of
// every eight columns a lane has two of row lane / 4 and two of the eighth after it. Neighbours
// exchange words, so that four lanes write 32 bytes in a row.
constexpr const char* kFinish = R"(
__device__ __forceinline__ int2 tile_place(int tile, int high, int wide, int group) {
  const int first = tile / (group * wide) * group;
  const int rows = min(group, high - first), within = tile - first * wide;
  return make_int2(first + within % rows, within / rows);
}
struct Finish {
  Number* y;
  const float *rows, *scales;
  const Number* bias;
  int m, n;
  long long stride;
  int one;
};
// What of a column is needed; without a bias what adding does not change.
struct Column {
  float scale, bias;
};
__device__ __forceinline__ Column read_column(const Finish& f, int column) {
  const bool there = column < f.n;
  return {there ? f.scales[f.one ? 0 : column] : 0.0f,
          there && f.bias ? up(f.bias[column]) : -0.0f};
}
// Scales of so many columns, then their biases.
template <int COUNT>
__device__ __forceinline__ void keep_column(unsigned columns, int i, const Column& column) {
  store_one(columns + 4 * i, column.scale);
  store_one(columns + 4 * (COUNT + i), column.bias);
}
__device__ __forceinline__ float scaled_sum(int sum, float row, float scale, float bias) {
  return __fadd_rn(__fmul_rn((float)sum, __fmul_rn(row, scale)), bias);
}
__device__ __forceinline__ void write_two(Number* to, bool there, int columns, float2 left,
                                          float2 right, int q) {
  if constexpr (sizeof(Number) == 4) {
    if (there && 2 * q < columns) *(float2*)(to + 2 * q) = left;
    if (there && 8 + 2 * q < columns) *(float2*)(to + 8 + 2 * q) = right;
  } else {
    const int odd = q & 1, c = 8 * odd + 2 * (q & 2);
    const unsigned a = packed_two(left.x, left.y), b = packed_two(right.x, right.y);
    const unsigned other = __shfl_xor_sync(0xffffffffu, odd ? a : b, 1);
    if (there && c < columns) *(uint2*)(to + c) = odd ? make_uint2(other, b) : make_uint2(a, other);
  }
}
// `kept`: where the first of the sums' columns is in what keep_column<COUNT> has kept.
template <int COUNT, int TILES>
__device__ __forceinline__ void finish(const int (&sums)[TILES][4], int row, int column,
                                       unsigned kept, const Finish& f) {
  const int lane = threadIdx.x % 32, q = lane % 4;
  const int upper = row + lane / 4, lower = upper + 8;
  const float by_upper = upper < f.m ? f.rows[upper] : 0.0f;
  const float by_lower = lower < f.m ? f.rows[lower] : 0.0f;
  Number* to = f.y + upper * f.stride + column;
  Number* to_lower = to + 8 * f.stride;
#pragma unroll
  for (int j = 0; j < TILES; j += 2) {
    float2 high[2], low[2];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const unsigned at = kept + 4 * (8 * (j + t) + 2 * q);
      const float2 by = load_two(at), more = load_two(at + 4 * COUNT);
      const int (&s)[4] = sums[j + t];
      high[t].x = scaled_sum(s[0], by_upper, by.x, more.x);
      high[t].y = scaled_sum(s[1], by_upper, by.y, more.y);
      low[t].x = scaled_sum(s[2], by_lower, by.x, more.x);
      low[t].y = scaled_sum(s[3], by_lower, by.y, more.y);
    }
    const int columns = f.n - column - 8 * j;
    write_two(to + 8 * j, upper < f.m, columns, high[0], high[1], q);
    write_two(to_lower + 8 * j, lower < f.m, columns, low[0], low[1], q);
  }
}
)";

// Eight warps, two of them above each other: 64 rows and a quarter of the columns each. Rows of 64
// bytes lie one behind the other, their 16-byte pieces exchanged (piece p of row r at
// p xor r / 2 % 4), so that eight rows' same pieces are in all banks.
constexpr const char* kProduct = R"(
constexpr int kTileRows = 128, kDepth = 64, kThreads = 256;
constexpr int kStage = (kTileRows + COLUMNS) * kDepth, kTiles = COLUMNS / 32;

__device__ __forceinline__ int spot(int row, int piece) {
  return row * kDepth + ((piece ^ ((row >> 1) & 3)) << 4);
}
template <int ROWS>
__device__ __forceinline__ void bring(unsigned to, const signed char* from, int first, int rows,
                                      int k, int at) {
#pragma unroll
  for (int i = 0; i < ROWS * 4 / kThreads; ++i) {
    const int piece = i * kThreads + threadIdx.x;
    const int r = piece / 4, x = at + piece % 4 * 16;
    const bool there = first + r < rows && x < k;
    copy_sixteen(to + spot(r, piece % 4), there ? from + (long long)(first + r) * k + x : from,
                 there);
  }
}
__device__ __forceinline__ void multiply_stage(int (&sums)[4][kTiles][4], unsigned a, unsigned b) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, matrix = lane / 8;
  const int row = warp / 4 * 64 + (matrix & 1) * 8 + lane % 8;
  const int column = warp % 4 * (COLUMNS / 4) + (matrix >> 1) * 8 + lane % 8;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    unsigned left[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      load_matrices(left[i], a + spot(row + 16 * i, 2 * part + (matrix >> 1)));
#pragma unroll
    for (int j = 0; j < kTiles; j += 2) {
      unsigned right[4];
      load_matrices(right, b + spot(column + 8 * j, 2 * part + (matrix & 1)));
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        multiply(sums[i][j], left[i], right[0], right[1]);
        multiply(sums[i][j + 1], left[i], right[2], right[3]);
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, COLUMNS == 128 ? 2 : 1)
int8_product(const signed char* a, const signed char* b, Number* y, const float* rows,
             const float* scales, const Number* bias, int m, int n, int k, long long stride,
             int one, int group) {
  extern __shared__ __align__(128) unsigned char room[];
  const unsigned base = place_of(room);
  const int high = (m + kTileRows - 1) / kTileRows, wide = (n + COLUMNS - 1) / COLUMNS;
  const int2 place = tile_place(blockIdx.x, high, wide, group);
  const int row = place.x * kTileRows, column = place.y * COLUMNS;
  const int steps = (k + kDepth - 1) / kDepth;
  const auto bring_step = [&](int step) {
    const unsigned to = base + step % STAGES * kStage;
    if (step < steps) {
      bring<kTileRows>(to, a, row, m, k, step * kDepth);
      bring<COLUMNS>(to + kTileRows * kDepth, b, column, n, k, step * kDepth);
    }
    commit_copies();
  };
  const Finish f{y, rows, scales, bias, m, n, stride, one};
  const unsigned kept = base + STAGES * kStage;
  if (threadIdx.x < COLUMNS)
    keep_column<COLUMNS>(kept, threadIdx.x, read_column(f, column + threadIdx.x));
  int sums[4][kTiles][4];
#pragma unroll
  for (int i = 0; i < 4 * kTiles * 4; ++i) sums[i / kTiles / 4][i / 4 % kTiles][i % 4] = 0;
#pragma unroll
  for (int step = 0; step < STAGES - 1; ++step) bring_step(step);
  for (int step = 0; step < steps; ++step) {
    await_copies<STAGES - 2>();
    __syncthreads();
    bring_step(step + STAGES - 1);
    const unsigned at = base + step % STAGES * kStage;
    multiply_stage(sums, at, at + kTileRows * kDepth);
  }
  const int warp = threadIdx.x / 32, side = warp % 4 * (COLUMNS / 4);
#pragma unroll
  for (int i = 0; i < 4; ++i)
    finish<COLUMNS>(sums[i], row + warp / 4 * 64 + 16 * i, column + side, kept + 4 * side, f);
}
)";

// The first warpgroup brings, one thread of it; each of the others multiplies 64 rows with all
// columns. Two barriers a stage: filled (by the bytes that arrive) and free (by every warp that is
// done with it, of all blocks into which it is filled).
constexpr const char* kHopperProduct = R"(
constexpr int kTileRows = 64 * GROUPS, kDepth = 128;
constexpr int kStage = (kTileRows + COLUMNS) * kDepth, kTiles = COLUMNS / 8;

struct Stage {
  int slot = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void next() {
    if (++slot < STAGES) return;
    slot = 0;
    parity ^= 1;
  }
};
struct Pipeline {
  unsigned base, barriers;
  __device__ __forceinline__ unsigned a(int slot) const { return base + slot * kStage; }
  __device__ __forceinline__ unsigned b(int slot) const { return a(slot) + kTileRows * kDepth; }
  __device__ __forceinline__ unsigned filled(int slot) const { return barriers + 8 * slot; }
  __device__ __forceinline__ unsigned is_free(int slot) const { return filled(slot + STAGES); }
  __device__ __forceinline__ unsigned columns(int warpgroup) const {
    return filled(2 * STAGES) + warpgroup * (8 * COLUMNS);
  }
};
// Tiles of rows are given out by clusters.
struct Tiles {
  int high, wide, group;
  __device__ __forceinline__ Tiles(int m, int n, int side_by_side)
      : high((m + kTileRows * CLUSTER - 1) / (kTileRows * CLUSTER)),
        wide((n + COLUMNS - 1) / COLUMNS),
        group(side_by_side) {}
  __device__ __forceinline__ int count() const { return high * wide; }
  __device__ __forceinline__ int first() const { return blockIdx.x / CLUSTER; }
  __device__ __forceinline__ int step() const { return gridDim.x / CLUSTER; }
  __device__ __forceinline__ int2 corner(int tile, int rank) const {
    const int2 place = tile_place(tile, high, wide, group);
    return make_int2((place.x * CLUSTER + rank) * kTileRows, place.y * COLUMNS);
  }
};
__device__ __forceinline__ void bring_all(const Pipeline& pipeline, const TensorMap& a,
                                          const TensorMap& b, const Tiles& tiles, int steps,
                                          int rank) {
  constexpr int part = COLUMNS / CLUSTER;
  Stage stage;
  for (int tile = tiles.first(); tile < tiles.count(); tile += tiles.step()) {
    const int2 corner = tiles.corner(tile, rank);
    for (int step = 0; step < steps; ++step, stage.next()) {
      const unsigned filled = pipeline.filled(stage.slot);
      if (CLUSTER == 1)
        await_barrier(pipeline.is_free(stage.slot), stage.parity ^ 1);
      else
        await_barrier_of_all(pipeline.is_free(stage.slot), stage.parity ^ 1);
      expect_bytes(filled, kStage);
      load_box(pipeline.a(stage.slot), a, step * kDepth, corner.x, filled);
      if (CLUSTER == 1)
        load_box(pipeline.b(stage.slot), b, step * kDepth, corner.y, filled);
      else
        load_box_for(pipeline.b(stage.slot) + rank * part * kDepth, b, step * kDepth,
                     corner.y + rank * part, filled, (1 << CLUSTER) - 1);
    }
  }
}
__device__ __forceinline__ void give_back(const Pipeline& pipeline, int slot) {
  const int lane = threadIdx.x % 32;
  if (CLUSTER == 1) {
    if (lane == 0) arrive(pipeline.is_free(slot));
  } else if (lane < CLUSTER) {
    arrive_at(pipeline.is_free(slot), lane);
  }
}
__device__ __forceinline__ void multiply_all(const Pipeline& pipeline, const Finish& f,
                                             const Tiles& tiles, int steps, int rank) {
  const int own = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
  int sums[kTiles][4];
#pragma unroll
  for (int i = 0; i < 4 * kTiles; ++i) sums[i / 4][i % 4] = 0;
  Stage stage;
  for (int tile = tiles.first(); tile < tiles.count(); tile += tiles.step()) {
    const int2 corner = tiles.corner(tile, rank);
    Column columns[2];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      columns[i] = read_column(f, corner.y + (i * 128 + threadIdx.x % 128) % COLUMNS);
    int before = -1;
    for (int step = 0; step < steps; ++step, stage.next()) {
      await_barrier(pipeline.filled(stage.slot), stage.parity);
      const unsigned long long a = matrix_at(pipeline.a(stage.slot) + own * 64 * kDepth);
      const unsigned long long b = matrix_at(pipeline.b(stage.slot));
      keep_in_place(sums);
      begin_products();
#pragma unroll
      for (int part = 0; part < 4; ++part)
        multiply_tile(sums, a + 2 * part, b + 2 * part, step | part);
      commit_products();
      keep_in_place(sums);
      await_products<1>();
      if (before >= 0) give_back(pipeline, before);
      before = stage.slot;
    }
    await_products<0>();
    keep_in_place(sums);
    give_back(pipeline, before);
    meet_warpgroup(own + 1);
#pragma unroll
    for (int i = 0; i < 2; ++i)
      if (i * 128 + threadIdx.x % 128 < COLUMNS)
        keep_column<COLUMNS>(pipeline.columns(own), i * 128 + threadIdx.x % 128, columns[i]);
    meet_warpgroup(own + 1);
    finish<COLUMNS>(sums, corner.x + own * 64 + warp * 16, corner.y, pipeline.columns(own), f);
  }
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1)
__launch_bounds__(128 * (GROUPS + 1), 1)
int8_hopper(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, Number* y,
            const float* rows, const float* scales, const Number* bias, int m, int n, int k,
            long long stride, int one, int group) {
  extern __shared__ unsigned char room[];
  const unsigned base = (place_of(room) + 1023) / 1024 * 1024;
  const Pipeline pipeline{base, base + STAGES * kStage};
  const Tiles tiles(m, n, group);
  const int steps = (k + kDepth - 1) / kDepth;
  const int rank = CLUSTER == 1 ? 0 : block_in_cluster();
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < STAGES; ++slot) {
      make_barrier(pipeline.filled(slot), 1);
      make_barrier(pipeline.is_free(slot), 4 * GROUPS * CLUSTER);
    }
    show_barriers();
  }
  __syncthreads();
  if (CLUSTER > 1) meet_cluster();
  if (threadIdx.x < 128) {
    keep_registers<GROUPS == 2 ? 40 : 32>();
    if (threadIdx.x == 0) bring_all(pipeline, a, b, tiles, steps, rank);
  } else {
    take_registers<GROUPS == 2 ? 232 : 160>();
    multiply_all(pipeline, {y, rows, scales, bias, m, n, stride, one}, tiles, steps, rank);
  }
  // What other blocks fill or count up must be there until they are done.
  if (CLUSTER > 1) {
    __syncwarp();
    meet_cluster();
  }
}
)";

}  // namespace

const KernelSource& rows_source() {
  static const KernelSource one{"int8_rows", kRows, kNumbers};
  return one;
}

const KernelSource& product_source() {
  static const std::string before = std::string(kNumbers) + device::cuda::kTensorCores + kFinish;
  static const KernelSource one{"int8_product", kProduct, before.c_str()};
  return one;
}

const KernelSource& hopper_source() {
  static const std::string before =
      std::string(kNumbers) + device::cuda::kTensorCores + device::cuda::hopper_text() + kFinish;
  static const KernelSource one{"int8_hopper", kHopperProduct, before.c_str(), true};
  return one;
}

}  // namespace distorch::quant::cuda
