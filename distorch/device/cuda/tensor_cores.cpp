#include "distorch/device/cuda/tensor_cores.h"

#include <fmt/format.h>

#include "distorch/device/cuda/libraries.h"

namespace distorch::device::cuda {
namespace {

/// One overload: the instruction names every register that it adds to.
std::string multiply_tile_text(int columns) {
  const int sums = columns / 2;
  std::string names, operands;
  for (int i = 0; i < sums; ++i) {
    names += fmt::format("{}%{}", i ? ", " : "", i);
    operands += fmt::format("{}\"+r\"(d[{}][{}])", i ? ", " : "", i / 4, i % 4);
  }
  return fmt::format(
      R"(
__device__ __forceinline__ void multiply_tile(int (&d)[{0}][4], unsigned long long a,
                                              unsigned long long b, int add) {{
  asm volatile("{{\n"
               ".reg .pred added;\n"
               "setp.ne.b32 added, %{1}, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n{2}k32.s32.s8.s8 {{{3}}}, %{4}, %{5}, added;\n"
               "}}" : {6} : "l"(a), "l"(b), "r"(add));
}}
)",
      sums / 4, sums + 2, columns, names, sums, sums + 1, operands);
}

}  // namespace

const std::string& hopper_text() {
  static const std::string text =
      kHopper + multiply_tile_text(128) + multiply_tile_text(192) + multiply_tile_text(256);
  return text;
}

bool map_bytes(TensorMap& map, const void* matrix, std::int64_t rows, std::int64_t row_bytes,
               int box_rows) {
  // The driver's numbers for: unsigned bytes, no interleaving, pieces of 16 bytes exchanged in 128,
  // 256 bytes read into the cache together, zeros beyond the matrix.
  constexpr int kBytes = 0, kPlain = 0, kPiecesIn128 = 3, kTogether256 = 3, kZeros = 0;
  const std::uint64_t sizes[] = {static_cast<std::uint64_t>(row_bytes),
                                 static_cast<std::uint64_t>(rows)};
  const unsigned box[] = {128, static_cast<unsigned>(box_rows)}, steps[] = {1, 1};
  const auto encode = driver().encode_tiled;
  return encode && encode(&map, kBytes, 2, const_cast<void*>(matrix), sizes, sizes, box, steps,
                          kPlain, kPiecesIn128, kTogether256, kZeros) == 0;
}

}  // namespace distorch::device::cuda
