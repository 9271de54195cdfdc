#pragma once
#include <cstdint>
#include <string>

/// Tensor cores for kernels of our own (KernelSource::before): instructions of PTX under names, for
/// whole numbers of 8 bits. Addresses in a multiprocessor's own memory are 32-bit ("at").
/// Source: NVIDIA, "Parallel Thread Execution ISA": ldmatrix, mma.m16n8k32, cp.async, mbarrier,
/// cp.async.bulk.tensor, wgmma and its matrix descriptor.
namespace distorch::device::cuda {

/// Every generation from sm_75 on. Before sm_80 copies are made at once.
/// - load_matrices: four matrices of 8 rows of 16 bytes; lane i names row i % 8 of matrix i / 8 and
///   receives 4 bytes of row lane / 4 of each, from byte lane % 4 * 4 on.
/// - multiply: sums [16, 8] += a [16, 32] · b [8, 32]ᵀ. A lane has rows lane / 4 and 8 more, columns
///   lane % 4 * 2 and the next, {0 1, 2 3}; of a the matrices (rows 0, k 0), (8, 0), (0, 16),
///   (8, 16), of b (k 0), (k 16).
/// - copy_sixteen: 16 bytes from global memory, zeros where they are not `there`; copies are waited
///   for in the groups that commit_copies() makes, all but the last N of them.
/// - store_one, load_two: numbers in the multiprocessor's own memory.
/// - packed_two: two numbers of a 16-bit type as a word.
inline constexpr const char* kTensorCores = R"(
__device__ __forceinline__ unsigned place_of(const void* p) {
  return (unsigned)__cvta_generic_to_shared(p);
}
__device__ __forceinline__ void store_one(unsigned at, float v) {
  asm volatile("st.shared.f32 [%0], %1;" :: "r"(at), "f"(v) : "memory");
}
__device__ __forceinline__ float2 load_two(unsigned at) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(at) : "memory");
  return v;
}
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], unsigned at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void multiply(int (&c)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void copy_sixteen(unsigned to, const void* from, bool there) {
  const int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(to), "l"(__cvta_generic_to_global(from)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N>
__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}
#else
__device__ __forceinline__ void multiply_quarter(int& c, int& d, unsigned a, unsigned b) {
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+r"(c), "+r"(d) : "r"(a), "r"(b));
}
__device__ __forceinline__ void multiply(int (&c)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1) {
  multiply_quarter(c[0], c[1], a[0], b0);
  multiply_quarter(c[2], c[3], a[1], b0);
  multiply_quarter(c[0], c[1], a[2], b1);
  multiply_quarter(c[2], c[3], a[3], b1);
}
__device__ __forceinline__ void copy_sixteen(unsigned to, const void* from, bool there) {
  uint4 v = make_uint4(0, 0, 0, 0);
  if (there) v = *(const uint4*)from;
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};"
               :: "r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
}
__device__ __forceinline__ void commit_copies() {}
template <int N>
__device__ __forceinline__ void await_copies() {}
#endif
__device__ __forceinline__ unsigned packed_two(float x, float y) {
#if __CUDA_ARCH__ >= 800 && KIND == 1
  unsigned two;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(y), "f"(x));
  return two;
#elif __CUDA_ARCH__ >= 800 && KIND == 2
  unsigned two;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(y), "f"(x));
  return two;
#else
  return (unsigned)down(x) | ((unsigned)down(y) << 16);
#endif
}
)";

/// sm_90a alone.
/// - A barrier counts arrivals and the bytes that copies bring; its phases alternate between parity 0
///   and 1, and await_barrier() returns when the phase of that parity is over. In a group of blocks
///   ("cluster") arrive_at() reaches the same barrier of another block.
/// - load_box: a box of a tensor map's matrix from column x, row y on, rows of 128 bytes of which
///   the 16-byte pieces are exchanged (piece p of row r lies at p xor r % 8); zeros beyond the
///   matrix. load_box_for: the same into every block of the cluster that `mask` names.
/// - matrix_at: the descriptor of such rows, 1024-byte aligned; 32 bytes further are the next 32
///   columns.
/// - meet_warpgroup: its 128 threads, by a barrier (1 to 15) of theirs. tell_warpgroup,
///   await_warpgroup: of two, one goes on and the other waits for it.
/// - begin_products, multiply_tile (hopper_text()), commit_products, await_products<N>: as copies;
///   keep_in_place: the compiler reads no sum before what stands above.
inline constexpr const char* kHopper = R"(
struct alignas(64) TensorMap { unsigned long long words[16]; };
__device__ __forceinline__ void make_barrier(unsigned at, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(at), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void show_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async;" ::: "memory");
}
__device__ __forceinline__ void expect_bytes(unsigned at, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :: "r"(at), "r"(bytes) : "memory");
}
__device__ __forceinline__ void arrive(unsigned at) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(at) : "memory");
}
__device__ __forceinline__ void arrive_at(unsigned at, unsigned block) {
  asm volatile("{\n"
               ".reg .b32 there;\n"
               "mapa.shared::cluster.u32 there, %0, %1;\n"
               "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
               "}" :: "r"(at), "r"(block) : "memory");
}
__device__ __forceinline__ void await_barrier(unsigned at, unsigned parity) {
  unsigned over;
  do {
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, over;\n"
                 "}" : "=r"(over) : "r"(at), "r"(parity) : "memory");
  } while (!over);
}
__device__ __forceinline__ void await_barrier_of_all(unsigned at, unsigned parity) {
  unsigned over;
  do {
    asm volatile("{\n"
                 ".reg .pred over;\n"
                 "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%1], %2;\n"
                 "selp.b32 %0, 1, 0, over;\n"
                 "}" : "=r"(over) : "r"(at), "r"(parity) : "memory");
  } while (!over);
}
__device__ __forceinline__ void load_box(unsigned to, const TensorMap& map, int x, int y,
                                         unsigned barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%2, %3}], [%4];"
               :: "r"(to), "l"(&map), "r"(x), "r"(y), "r"(barrier) : "memory");
}
__device__ __forceinline__ void load_box_for(unsigned to, const TensorMap& map, int x, int y,
                                             unsigned barrier, unsigned short mask) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
               ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;"
               :: "r"(to), "l"(&map), "r"(x), "r"(y), "r"(barrier), "h"(mask) : "memory");
}
__device__ __forceinline__ void meet_warpgroup(int barrier) {
  asm volatile("bar.sync %0, 128;" :: "r"(barrier) : "memory");
}
__device__ __forceinline__ void tell_warpgroup(int barrier) {
  asm volatile("bar.arrive %0, 256;" :: "r"(barrier) : "memory");
}
__device__ __forceinline__ void await_warpgroup(int barrier) {
  asm volatile("bar.sync %0, 256;" :: "r"(barrier) : "memory");
}
__device__ __forceinline__ unsigned block_in_cluster() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void meet_cluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
template <int REGISTERS>
__device__ __forceinline__ void keep_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(REGISTERS));
}
__device__ __forceinline__ unsigned long long matrix_at(unsigned at) {
  // Rows of 128 bytes in eights of 1024 bytes, their pieces exchanged.
  return ((unsigned long long)1 << 62) | ((unsigned long long)(1024 >> 4) << 32) |
         ((unsigned long long)1 << 16) | (unsigned long long)((at & 0x3ffff) >> 4);
}
__device__ __forceinline__ void begin_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N>
__device__ __forceinline__ void await_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(N) : "memory");
}
template <int TILES>
__device__ __forceinline__ void keep_in_place(int (&sums)[TILES][4]) {
#pragma unroll
  for (int j = 0; j < TILES; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(sums[j][i]) :: "memory");
}
)";

/// kHopper and multiply_tile(sums, a, b, add) for 128, 192 and 256 columns: sums [64, columns] =
/// (add ? sums : 0) + a [64, 32] · b [columns, 32]ᵀ. A warp has 16 rows; its lanes have of every
/// eight columns what multiply() says.
const std::string& hopper_text();

/// The driver's tensor map (CUtensorMap), by value an argument of a kernel.
struct alignas(64) TensorMap {
  std::uint64_t words[16];
};
/// Boxes of 128 bytes of `box_rows` rows of a matrix of bytes as load_box() reads them: rows lie
/// one behind the other, 16-byte aligned. False where the driver refuses or is too old.
bool map_bytes(TensorMap& map, const void* matrix, std::int64_t rows, std::int64_t row_bytes,
               int box_rows);

}  // namespace distorch::device::cuda
