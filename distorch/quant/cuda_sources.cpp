#include "distorch/quant/cuda_sources.h"

#include <string>

namespace distorch::quant::cuda {
namespace {

using device::cuda::KernelSource;
using device::cuda::kNumbers;

/// A warp's 256 numbers, eight a lane, and how groups of them are rotated: by each pair of bits of a
/// number's place in its group, four numbers become their sum less twice the one at the mirrored
/// place, over two. Bits 0 to 2 of the place are the index in the lane, the others the lane's.
constexpr const char* kWarp = R"(
template <int BIT>
__device__ __forceinline__ float flipped(const float* v, int j) {
  if (BIT < 3) return v[j ^ (1 << (BIT % 3))];
  return __shfl_xor_sync(0xffffffffu, v[j], 1 << (BIT < 3 ? 0 : BIT - 3));
}
template <int BIT>
__device__ __forceinline__ void rotate_by(float* v) {
  float pairs[8], mirrored[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) pairs[j] = v[j] + flipped<BIT>(v, j);
#pragma unroll
  for (int j = 0; j < 8; ++j) mirrored[j] = flipped<BIT>(v, j);
#pragma unroll
  for (int j = 0; j < 8; ++j)
    v[j] = 0.5f * (pairs[j] + flipped<BIT + 1>(pairs, j)) - flipped<BIT + 1>(mirrored, j);
}
__device__ __forceinline__ void rotate_all(float* v, int stages) {
  if (stages > 0) rotate_by<0>(v);
  if (stages > 1) rotate_by<2>(v);
  if (stages > 2) rotate_by<4>(v);
  if (stages > 3) rotate_by<6>(v);
}
__device__ __forceinline__ void read_eight(const Number* x, long long at, long long end, float* v) {
  Eight eight;
  if (at < end) eight = *(const Eight*)(x + at);
#pragma unroll
  for (int j = 0; j < 8; ++j) v[j] = at < end ? up(eight.v[j]) : 0.0f;
}
)";

/// kNumbers has an Eight of 16 bytes' alignment, which eight float32 numbers need not have.
const std::string& before() {
  static const std::string text = std::string(kNumbers) + kWarp;
  return text;
}

constexpr const char* kRotate = R"(
extern "C" __global__ void rotated(const Number* x, float* y, long long size, int stages) {
  const long long at = ((long long)blockIdx.x * blockDim.y + threadIdx.y) * 256 + threadIdx.x * 8;
  float v[8];
  read_eight(x, at, size, v);
  rotate_all(v, stages);
  if (at >= size) return;
#pragma unroll
  for (int j = 0; j < 8; j += 4)
    *(float4*)(y + at + j) = make_float4(v[j], v[j + 1], v[j + 2], v[j + 3]);
}
)";

// A block of eight warps a row. What was read is read again from the cache: a row may be longer than
// the registers hold.
constexpr const char* kWholeRows = R"(
extern "C" __global__ void whole_rows(const Number* x, signed char* y, float* scales, int rows,
                                      int width, int stages, int most, int least, float floor) {
  __shared__ float partial[8];
  const int row = blockIdx.x;
  signed char* to = y + (long long)row * width;
  const int lane = threadIdx.x, step = 256 * blockDim.y;
  const int start = threadIdx.y * 256 + lane * 8;
  if (row >= rows) {
    for (int at = start; at < width; at += step) *(uint2*)(to + at) = make_uint2(0, 0);
    return;
  }
  const Number* from = x + (long long)row * width;
  float v[8], largest = 0, strange = 0;
  for (int first = 0; first < width; first += step) {
    read_eight(from, first + start, width, v);
    rotate_all(v, stages);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      largest = fmaxf(largest, fabsf(v[j]));
      strange += v[j] * 0.0f;
    }
  }
  largest += strange;
  for (int mask = 16; mask > 0; mask /= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, largest, mask);
    largest = other != other || other > largest ? other : largest;
  }
  if (lane == 0) partial[threadIdx.y] = largest;
  __syncthreads();
  for (int i = 0; i < blockDim.y; ++i) {
    const float other = partial[i];
    largest = other != other || other > largest ? other : largest;
  }
  float scale = largest / (float)most;
  if (scale < floor) scale = floor;
  if (lane == 0 && threadIdx.y == 0) scales[row] = scale;
  for (int first = 0; first < width; first += step) {
    const int at = first + start;
    read_eight(from, at, width, v);
    rotate_all(v, stages);
    if (at >= width) continue;
    unsigned int half[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      int q = __float2int_rn(__fdiv_rn(v[j], scale));
      q = q > most ? most : q < least ? least : q;
      half[j / 4] |= (unsigned int)(q & 0xff) << (8 * (j % 4));
    }
    *(uint2*)(to + at) = make_uint2(half[0], half[1]);
  }
}
)";

constexpr const char* kScaled = R"(
extern "C" __global__ void scaled(const int4* sums, Number* y, const float* row,
                                  const float* scales, const Number* bias, int width, int one) {
  const int r = blockIdx.x;
  const float by = row[r];
  const int4* from = sums + (long long)r * (width / 4);
  Quad* to = (Quad*)(y + (long long)r * width);
  for (int i = threadIdx.x; i < width / 4; i += blockDim.x) {
    const int4 s = from[i];
    const int all[4] = {s.x, s.y, s.z, s.w};
    Quad out;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float factor = __fmul_rn(by, scales[one ? 0 : 4 * i + j]);
      float v = __fmul_rn((float)all[j], factor);
      if (bias) v = __fadd_rn(v, up(bias[4 * i + j]));
      out.v[j] = down(v);
    }
    to[i] = out;
  }
}
)";

/// float8_e4m3fn numbers, and where a block's scale lies (block_scaled.h).
constexpr const char* kBlocks = R"(
__device__ __forceinline__ float small_float(unsigned int bits) {
  const unsigned int exponent = (bits >> 3) & 15, mantissa = bits & 7;
  float value = exponent ? __uint_as_float(((exponent + 120) << 23) | (mantissa << 20))
                         : (float)mantissa * 0.001953125f;
  if ((bits & 127) == 127) value = __uint_as_float(0x7fc00000u);
  return bits & 128 ? -value : value;
}
__device__ __forceinline__ unsigned char scale_at(const unsigned char* scales, int row, int block,
                                                  int blocks) {
  const long long tile = (long long)(row / 128) * ((blocks + 3) / 4) + block / 4;
  return scales[tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + block % 4];
}
)";

const std::string& before_blocks() {
  static const std::string text = std::string(kNumbers) + kBlocks;
  return text;
}

// A block of threads a row, a lane half of a block of numbers: four bytes become eight.
constexpr const char* kDecodeFour = R"(
extern "C" __global__ void decode_four(const unsigned char* values, const unsigned char* scales,
                                       const float* whole, Number* y, int bytes, int start) {
  const int row = blockIdx.x, blocks = bytes / 8;
  const unsigned int* from = (const unsigned int*)(values + (long long)row * bytes);
  Eight* to = (Eight*)(y + (long long)row * bytes * 2);
  const float all = up(down(*whole));
  for (int i = threadIdx.x; i < bytes / 4; i += blockDim.x) {
    const float own = up(down(small_float(scale_at(scales, start + row, i / 2, blocks))));
    const float factor = up(down(__fmul_rn(all, own)));
    const unsigned int packed = from[i];
    Eight out;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const unsigned int code = (packed >> (8 * (j / 2) + (j % 2 ? 0 : 4))) & 15;
      const unsigned int size = code & 7;
      // 0, 0.5, 1, 1.5, 2, 3, 4, 6
      const float value = size < 2 ? 0.5f * size
                                   : __uint_as_float(((size / 2 + 126) << 23) | ((size & 1) << 22));
      out.v[j] = down(__fmul_rn(code & 8 ? -value : value, factor));
    }
    to[i] = out;
  }
}
)";

constexpr const char* kDecodeEight = R"(
extern "C" __global__ void decode_eight(const unsigned char* values, const unsigned char* scales,
                                        const float* whole, Number* y, int bytes, int start) {
  const int row = blockIdx.x, blocks = bytes / 32;
  const uint2* from = (const uint2*)(values + (long long)row * bytes);
  Eight* to = (Eight*)(y + (long long)row * bytes);
  for (int i = threadIdx.x; i < bytes / 8; i += blockDim.x) {
    const unsigned int exponent = scale_at(scales, start + row, i / 4, blocks);
    const float factor = __uint_as_float(exponent << 23);
    const uint2 packed = from[i];
    Eight out;
#pragma unroll
    for (int j = 0; j < 8; ++j)
      out.v[j] = down(__fmul_rn(small_float(((j < 4 ? packed.x : packed.y) >> (8 * (j % 4))) & 255),
                                factor));
    to[i] = out;
  }
}
)";

// A block of threads a row, a thread four bytes at a time: eight numbers. Without scales signed numbers.
constexpr const char* kNibbles = R"(
extern "C" __global__ void nibbles(const unsigned int* bytes, uint2* y, const float* scales,
                                   const float* levels, int words, int group) {
  __shared__ float table[16];
  if (threadIdx.x < 16) table[threadIdx.x] = scales ? levels[threadIdx.x] : 0.0f;
  __syncthreads();
  const long long row = blockIdx.x;
  const float* own = scales ? scales + row * (words * 8 / group) : scales;
  for (int i = threadIdx.x; i < words; i += blockDim.x) {
    const unsigned int packed = bytes[row * words + i];
    unsigned int half[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int code = (packed >> (4 * j)) & 15;
      int q = code < 8 ? code : code - 16;
      if (scales) {
        q = __float2int_rn(__fmul_rn(table[code], own[(8 * i + j) / group]));
        q = q > 127 ? 127 : q < -127 ? -127 : q;
      }
      half[j / 4] |= (unsigned int)(q & 0xff) << (8 * (j % 4));
    }
    y[row * words + i] = make_uint2(half[0], half[1]);
  }
}
)";

}  // namespace

const KernelSource& nibbles_source() {
  static const KernelSource one{"nibbles", kNibbles};
  return one;
}

const KernelSource& decode_four_source() {
  static const KernelSource one{"decode_four", kDecodeFour, before_blocks().c_str()};
  return one;
}

const KernelSource& decode_eight_source() {
  static const KernelSource one{"decode_eight", kDecodeEight, before_blocks().c_str()};
  return one;
}

const KernelSource& rotate_source() {
  static const KernelSource one{"rotated", kRotate, before().c_str()};
  return one;
}

const KernelSource& whole_rows_source() {
  static const KernelSource one{"whole_rows", kWholeRows, before().c_str()};
  return one;
}

const KernelSource& scaled_source() {
  static const KernelSource one{"scaled", kScaled, kNumbers};
  return one;
}

std::vector<KernelSource> sources() {
  return {rotate_source(),      whole_rows_source(),   scaled_source(),
          decode_four_source(), decode_eight_source(), nibbles_source()};
}

}  // namespace distorch::quant::cuda
