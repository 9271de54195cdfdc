#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <barrier>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

// A GPU's block of threads on the host, a thread of the system for each: so that the kernels of
// distorch/quant/int8_*.inc are run where there is no device. Instructions do what PTX's manual says
// of them (device/cuda/tensor_cores.h names them). Products and copies of sm_90a happen as late and as
// early as they may: when they are waited for, and at once.

struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline int4 __ldcg(const int4* from) { return *from; }
inline int atomicAdd(int* to, int more) { return std::atomic_ref(*to).fetch_add(more); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
using std::max;
using std::min;

/// What kernels read and write here: bfloat16.
using Number = std::uint16_t;
struct alignas(16) Eight {
  Number v[8];
};
struct Place {
  int x = 0;
};

inline unsigned __float_as_uint(float f) {
  unsigned bits = 0;
  std::memcpy(&bits, &f, sizeof(f));
  return bits;
}
inline float __uint_as_float(unsigned bits) {
  float f = 0;
  std::memcpy(&f, &bits, sizeof(f));
  return f;
}
inline float up(Number b) { return __uint_as_float(static_cast<unsigned>(b) << 16); }
inline Number down(float f) {
  const unsigned u = __float_as_uint(f);
  return static_cast<Number>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
inline unsigned packed_two(float x, float y) {
  return static_cast<unsigned>(down(x)) | static_cast<unsigned>(down(y)) << 16;
}
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const auto both = static_cast<std::uint64_t>(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i)
    result |= static_cast<unsigned>(both >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return result;
}

/// The threads of a block meet at these.
struct Meeting {
  explicit Meeting(int threads) : barrier(threads) {}
  std::barrier<> barrier;
};
struct Warp {
  Meeting meeting{32};
  std::array<std::array<unsigned, 8>, 32> words{};  // of each lane, for the others
};
struct Barrier {
  int count = 0, pending = 0;
  long bytes = 0;
  unsigned phase = 0;
};
struct Block {
  explicit Block(int threads) : memory(240000, 0x55), all(threads), warps(threads / 32) {
    for (auto& group : groups) group = std::make_unique<Meeting>(128);
    for (auto& pair : pairs) pair = std::make_unique<Meeting>(256);
  }
  std::vector<unsigned char> memory;  // the multiprocessor's, by 32-bit places
  Meeting all;
  std::vector<Warp> warps;
  std::array<std::unique_ptr<Meeting>, 16> groups, pairs;  // named barriers
  std::map<unsigned, Barrier> barriers;                    // by place
};
/// Blocks of a cluster; one where there is none.
struct Cluster {
  Cluster(int blocks, int threads) : all(blocks * threads) {
    for (int i = 0; i < blocks; ++i) this->blocks.push_back(std::make_unique<Block>(threads));
  }
  std::vector<std::unique_ptr<Block>> blocks;
  Meeting all;
  std::mutex mutex;
  std::condition_variable changed;
};

inline thread_local Place threadIdx, blockIdx;
inline Place blockDim, gridDim;
inline thread_local int own_rank = 0;
inline std::unique_ptr<Cluster> cluster;

inline Block& own_block() { return *cluster->blocks[own_rank]; }
inline Warp& own_warp() { return own_block().warps[threadIdx.x / 32]; }
inline int own_lane() { return threadIdx.x % 32; }
inline void __syncwarp() { own_warp().meeting.barrier.arrive_and_wait(); }
inline void __syncthreads() { own_block().all.barrier.arrive_and_wait(); }
inline unsigned char& byte_at(unsigned place) { return own_block().memory.at(place); }

/// Leaves a lane's words for the others; theirs are read before the second __syncwarp().
inline std::array<std::array<unsigned, 8>, 32> exchanged(const std::array<unsigned, 8>& words) {
  own_warp().words[own_lane()] = words;
  __syncwarp();
  auto all = own_warp().words;
  __syncwarp();
  return all;
}
inline unsigned __shfl_xor_sync(unsigned, unsigned value, int mask) {
  return exchanged({value})[own_lane() ^ mask][0];
}

inline unsigned place_of(const void*) { return 0; }
inline void must_divide(std::uintptr_t place, unsigned by) {
  if (place % by != 0) throw std::logic_error("a place is not aligned");
}
inline void store_one(unsigned at, float v) { std::memcpy(&byte_at(at), &v, sizeof(v)); }
inline float2 load_two(unsigned at) {
  must_divide(at, 8);
  float2 v{};
  std::memcpy(&v, &byte_at(at), sizeof(v));
  return v;
}
inline void load_matrices(unsigned (&r)[4], unsigned at) {
  must_divide(at, 16);
  const auto rows = exchanged({at});
  for (int matrix = 0; matrix < 4; ++matrix)
    std::memcpy(&r[matrix], &byte_at(rows[8 * matrix + own_lane() / 4][0] + own_lane() % 4 * 4), 4);
}
inline int signed_byte(unsigned word, int i) {
  return static_cast<std::int8_t>(word >> (8 * i) & 255);
}
inline void multiply(int (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  const auto all = exchanged({a[0], a[1], a[2], a[3], b0, b1});
  for (int i = 0; i < 4; ++i) {
    const int row = own_lane() / 4 + 8 * (i / 2), column = own_lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 32; ++k) {
      const int four = k % 16 / 4;
      c[i] += signed_byte(all[row % 8 * 4 + four][row / 8 + 2 * (k / 16)], k % 4) *
              signed_byte(all[column * 4 + four][4 + k / 16], k % 4);
    }
  }
}
inline void copy_sixteen(unsigned to, const void* from, bool there) {
  must_divide(to, 16);
  must_divide(reinterpret_cast<std::uintptr_t>(from), 16);
  if (there)
    std::memcpy(&byte_at(to), from, 16);
  else
    std::memset(&byte_at(to), 0, 16);
}
inline void commit_copies() {}
template <int N>
void await_copies() {}

/// A matrix [height, width] of bytes, of which boxes have so many rows.
struct TensorMap {
  const std::int8_t* data;
  int width, height, box;
};
/// To be called with the cluster's mutex.
inline void count(int rank, unsigned at, int arrivals, long bytes) {
  auto& barrier = cluster->blocks[rank]->barriers.at(at);
  barrier.pending -= arrivals;
  barrier.bytes += bytes;
  if (barrier.pending < 0) throw std::logic_error("more arrive at a barrier than it counts");
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.pending = barrier.count;
  cluster->changed.notify_all();
}
inline void make_barrier(unsigned at, int arrivals) {
  std::lock_guard lock(cluster->mutex);
  own_block().barriers[at] = {arrivals, arrivals, 0, 0};
}
inline void show_barriers() {}
inline void expect_bytes(unsigned at, int bytes) {
  std::lock_guard lock(cluster->mutex);
  count(own_rank, at, 1, bytes);
}
inline void arrive(unsigned at) {
  std::lock_guard lock(cluster->mutex);
  count(own_rank, at, 1, 0);
}
inline void arrive_at(unsigned at, unsigned rank) {
  std::lock_guard lock(cluster->mutex);
  count(static_cast<int>(rank), at, 1, 0);
}
inline void await_barrier(unsigned at, unsigned parity) {
  std::unique_lock lock(cluster->mutex);
  auto& barrier = own_block().barriers.at(at);
  cluster->changed.wait(lock, [&] { return (barrier.phase & 1) != parity; });
}
inline void await_barrier_of_all(unsigned at, unsigned parity) { await_barrier(at, parity); }
/// Where byte `place` of rows of 128 bytes lies whose pieces of 16 are exchanged.
inline unsigned in_pieces(unsigned place) { return place ^ ((place >> 7 & 7) << 4); }
inline void load_box_for(unsigned to, const TensorMap& map, int x, int y, unsigned barrier,
                         unsigned short mask) {
  must_divide(to, 1024);
  for (int rank = 0; rank < static_cast<int>(cluster->blocks.size()); ++rank) {
    if ((mask >> rank & 1) == 0) continue;
    for (int r = 0; r < map.box; ++r)
      for (int c = 0; c < 128; ++c) {
        const bool there = y + r < map.height && x + c < map.width;
        const auto from = static_cast<std::ptrdiff_t>(y + r) * map.width + x + c;
        cluster->blocks[rank]->memory.at(in_pieces(to + r * 128 + c)) =
            there ? static_cast<unsigned char>(map.data[from]) : 0;
      }
    std::lock_guard lock(cluster->mutex);
    count(rank, barrier, 0, -128L * map.box);
  }
}
inline void load_box(unsigned to, const TensorMap& map, int x, int y, unsigned barrier) {
  load_box_for(to, map, x, y, barrier, static_cast<unsigned short>(1 << own_rank));
}
inline int block_in_cluster() { return own_rank; }
inline void meet_cluster() { cluster->all.barrier.arrive_and_wait(); }
inline void meet_warpgroup(int i) { own_block().groups.at(i)->barrier.arrive_and_wait(); }
inline void tell_warpgroup(int i) { (void)own_block().pairs.at(i)->barrier.arrive(); }
inline void await_warpgroup(int i) { own_block().pairs.at(i)->barrier.arrive_and_wait(); }
template <int REGISTERS>
void keep_registers() {}
template <int REGISTERS>
void take_registers() {}

/// The bits of a matrix descriptor: 128-byte rows in pieces, eights of rows 1024 bytes apart.
inline unsigned long long matrix_at(unsigned at) {
  return 1ULL << 62 | 64ULL << 32 | 1ULL << 16 | (at & 0x3ffff) >> 4;
}
inline int operand(unsigned long long descriptor, int row, int k) {
  const auto start = static_cast<unsigned>(descriptor & 0x3fff) << 4;
  const auto eights = static_cast<unsigned>(descriptor >> 32 & 0x3fff) << 4;
  const auto place = start + row / 8 * eights + row % 8 * 128 + k;
  return static_cast<std::int8_t>(byte_at(in_pieces(place)));
}
using Work = std::vector<std::function<void()>>;
inline thread_local Work open_products;
inline thread_local std::vector<Work> committed_products;
inline void begin_products() { __syncwarp(); }
inline void commit_products() { committed_products.push_back(std::exchange(open_products, {})); }
template <int N>
void await_products() {
  while (committed_products.size() > N) {
    for (auto& work : committed_products.front()) work();
    committed_products.erase(committed_products.begin());
  }
  __syncwarp();
}
template <int TILES>
void keep_in_place(int (&)[TILES][4]) {}
template <int TILES>
void multiply_tile(int (&sums)[TILES][4], unsigned long long a, unsigned long long b, int add) {
  auto* to = &sums;
  open_products.push_back([=] {
    const int first = threadIdx.x / 32 % 4 * 16 + own_lane() / 4;
    for (int j = 0; j < TILES; ++j)
      for (int i = 0; i < 4; ++i) {
        const int row = first + 8 * (i / 2), column = 8 * j + own_lane() % 4 * 2 + i % 2;
        int sum = add ? (*to)[j][i] : 0;
        for (int k = 0; k < 32; ++k) sum += operand(a, row, k) * operand(b, column, k);
        (*to)[j][i] = sum;
      }
  });
}

/// Runs the kernel in `blocks` blocks, a cluster after the other.
inline void launch_emulated(int blocks, int in_cluster, int threads,
                            const std::function<void()>& kernel) {
  blockDim = {threads};
  gridDim = {blocks};
  for (int first = 0; first < blocks; first += in_cluster) {
    cluster = std::make_unique<Cluster>(in_cluster, threads);
    std::vector<std::jthread> all;
    for (int i = 0; i < in_cluster * threads; ++i)
      all.emplace_back([&kernel, first, threads, i] {
        own_rank = i / threads;
        threadIdx = {i % threads};
        blockIdx = {first + i / threads};
        kernel();
      });
  }
}
