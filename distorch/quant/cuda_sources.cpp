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

// A block of threads a row, a thread a block of numbers: eight bytes become sixteen numbers. Numbers of 16 bits are looked up in a table
// of the eight sizes that a code may mean, multiplied by the block's factor: a byte of each in two pairs of registers, from which one
// instruction takes four by the codes' own bits.
constexpr const char* kDecodeFour = R"(
__device__ __forceinline__ float size_of(unsigned int code) {
  const unsigned int size = code & 7;
  // 0, 0.5, 1, 1.5, 2, 3, 4, 6
  return size < 2 ? 0.5f * size : __uint_as_float(((size / 2 + 126) << 23) | ((size & 1) << 22));
}
__device__ __forceinline__ void put_codes(Number* to, unsigned int packed, float factor) {
  float v[8];
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const unsigned int code = (packed >> (8 * (j / 2) + (j % 2 ? 0 : 4))) & 15;
    v[j] = __fmul_rn(code & 8 ? -size_of(code) : size_of(code), factor);
  }
  put_eight(to, v);
}
#if KIND != 0
struct Table {
  unsigned int low[2], high[2];
  __device__ __forceinline__ explicit Table(float factor) {
    unsigned int sizes[4];
#pragma unroll
    for (int i = 0; i < 4; ++i)
      sizes[i] = two(__fmul_rn(size_of(2 * i), factor), __fmul_rn(size_of(2 * i + 1), factor));
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      low[i] = __byte_perm(sizes[2 * i], sizes[2 * i + 1], 0x6420);
      high[i] = __byte_perm(sizes[2 * i], sizes[2 * i + 1], 0x7531);
    }
  }
  // Of two bytes of codes four numbers; the first of a byte is its upper half.
  __device__ __forceinline__ uint2 four(unsigned int codes) const {
    const unsigned int by = codes & 0x7777;
    const unsigned int lows = __byte_perm(low[0], low[1], by), highs = __byte_perm(high[0], high[1], by);
    return make_uint2(__byte_perm(lows, highs, 0x4051) ^ (codes << 8 & 0x8000u) ^ (codes << 28 & 0x80000000u),
                      __byte_perm(lows, highs, 0x6273) ^ (codes & 0x8000u) ^ (codes << 20 & 0x80000000u));
  }
};
#endif
extern "C" __global__ void decode_four(const unsigned char* values, const unsigned char* scales,
                                       const float* whole, Number* y, int bytes, int start) {
  const int row = blockIdx.x, blocks = bytes / 8;
  const uint2* from = (const uint2*)(values + (long long)row * bytes);
  Number* to = y + (long long)row * bytes * 2;
  const float all = up(down(*whole));
  for (int i = threadIdx.x; i < blocks; i += blockDim.x) {
    const float own = up(down(small_float(scale_at(scales, start + row, i, blocks))));
    const float factor = up(down(__fmul_rn(all, own)));
    const uint2 packed = from[i];
#if KIND != 0
    // Zero times infinity is no number, and neither has a sign.
    if (fabsf(factor) < __uint_as_float(0x7f800000u)) {
      const Table table(factor);
      uint4* out = (uint4*)(to + 16 * i);
      const uint2 a = table.four(packed.x & 0xffff), b = table.four(packed.x >> 16);
      const uint2 c = table.four(packed.y & 0xffff), d = table.four(packed.y >> 16);
      out[0] = make_uint4(a.x, a.y, b.x, b.y);
      out[1] = make_uint4(c.x, c.y, d.x, d.y);
      continue;
    }
#endif
    put_codes(to + 16 * i, packed.x, factor);
    put_codes(to + 16 * i + 8, packed.y, factor);
  }
}
)";

// A block of threads a row, a thread eight bytes at a time. From Ada on the device itself reads float8_e4m3fn.
constexpr const char* kDecodeEight = R"(
__device__ __forceinline__ void put_bytes(float* v, unsigned int packed, float factor) {
#if __CUDA_ARCH__ >= 890
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    unsigned int both;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(both) : "h"((unsigned short)(packed >> 16 * i)));
    asm("{ .reg .f16 a, b;\n mov.b32 {a, b}, %2;\n cvt.f32.f16 %0, a;\n cvt.f32.f16 %1, b; }"
        : "=f"(v[2 * i]), "=f"(v[2 * i + 1]) : "r"(both));
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) v[j] = __fmul_rn(v[j], factor);
#else
#pragma unroll
  for (int j = 0; j < 4; ++j) v[j] = __fmul_rn(small_float((packed >> (8 * j)) & 255), factor);
#endif
}
extern "C" __global__ void decode_eight(const unsigned char* values, const unsigned char* scales,
                                        const float* whole, Number* y, int bytes, int start) {
  const int row = blockIdx.x, blocks = bytes / 32;
  const uint2* from = (const uint2*)(values + (long long)row * bytes);
  Number* to = y + (long long)row * bytes;
  for (int i = threadIdx.x; i < bytes / 8; i += blockDim.x) {
    const unsigned int exponent = scale_at(scales, start + row, i / 4, blocks);
    const float factor = __uint_as_float(exponent << 23);
    const uint2 packed = from[i];
    float v[8];
    put_bytes(v, packed.x, factor);
    put_bytes(v + 4, packed.y, factor);
    put_eight(to + 8 * i, v);
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
