#include <algorithm>
#include <array>
#include <cstring>

#include "distorch/convert/blocks.h"
#include "distorch/convert/k_search.h"

// The bytes of blocks of 256 numbers, in parts of 16 or 32 that have a scale (and an offset) of few
// bits of their own. What the scales and codes are is found in k_search.h.
namespace distorch::convert {
namespace {

void put_half(std::uint8_t* to, float number) {
  const auto bits = to_half(number);
  std::memcpy(to, &bits, sizeof bits);
}

/// A block of those that were found together: codes of number i of part `p` are codes[i][p].
struct Block {
  float d = 0, dmin = 0;
  const std::int16_t *scales = nullptr, *offsets = nullptr;
  const std::uint8_t (*codes)[kLanes] = nullptr;
  int first = 0;  // of its parts

  int code(int part, int i) const { return codes[i][first + part]; }
};

/// Eight scales and eight offsets of six bits in twelve bytes.
void put_sixes(const Block& block, std::uint8_t* to) {
  for (int i = 0; i < 4; ++i) {
    const int scale = block.scales[i + 4], offset = block.offsets[i + 4];
    to[i] = static_cast<std::uint8_t>(block.scales[i] | scale >> 4 << 6);
    to[i + 4] = static_cast<std::uint8_t>(block.offsets[i] | offset >> 4 << 6);
    to[i + 8] = static_cast<std::uint8_t>((scale & 15) | (offset & 15) << 4);
  }
}

/// The lower four bits of 64 numbers in 32 bytes, for all 256, which are parts of 32.
void put_fours(const Block& block, std::uint8_t* to) {
  for (int group = 0; group < 4; ++group)
    for (int i = 0; i < 32; ++i)
      to[32 * group + i] = static_cast<std::uint8_t>((block.code(2 * group, i) & 15) |
                                                     (block.code(2 * group + 1, i) & 15) << 4);
}

/// The lower two bits of 128 numbers in 32 bytes, for all 256, which are parts of 16.
void put_twos(const Block& block, std::uint8_t* to) {
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 32; ++i) {
      const int part = 8 * half + i / 16;
      int byte = 0;
      for (int k = 0; k < 4; ++k) byte |= (block.code(part + 2 * k, i % 16) & 3) << 2 * k;
      to[32 * half + i] = static_cast<std::uint8_t>(byte);
    }
}

void put_q4_k(const Block& block, std::uint8_t* to) {
  put_half(to, block.d);
  put_half(to + 2, block.dmin);
  put_sixes(block, to + 4);
  put_fours(block, to + 16);
}

void put_q5_k(const Block& block, std::uint8_t* to) {
  put_half(to, block.d);
  put_half(to + 2, block.dmin);
  put_sixes(block, to + 4);
  for (int i = 0; i < 32; ++i) {
    int fifth = 0;
    for (int part = 0; part < 8; ++part) fifth |= block.code(part, i) >> 4 << part;
    to[16 + i] = static_cast<std::uint8_t>(fifth);
  }
  put_fours(block, to + 48);
}

void put_q2_k(const Block& block, std::uint8_t* to) {
  for (int part = 0; part < 16; ++part)
    to[part] = static_cast<std::uint8_t>(block.scales[part] | block.offsets[part] << 4);
  put_twos(block, to + 16);
  put_half(to + 80, block.d);
  put_half(to + 82, block.dmin);
}

void put_q3_k(const Block& block, std::uint8_t* to) {
  for (int i = 0; i < 32; ++i) {
    int third = 0;
    for (int k = 0; k < 8; ++k) third |= block.code(2 * k + i / 16, i % 16) >> 2 << k;
    to[i] = static_cast<std::uint8_t>(third);
  }
  put_twos(block, to + 32);
  std::memset(to + 96, 0, 12);
  for (int part = 0; part < 16; ++part) {
    const int scale = block.scales[part] + 32;
    auto& low = to[96 + part % 8];
    low = static_cast<std::uint8_t>(low | (scale & 15) << (part < 8 ? 0 : 4));
    auto& high = to[104 + part % 4];
    high = static_cast<std::uint8_t>(high | scale >> 4 << part / 4 * 2);
  }
  put_half(to + 108, block.d);
}

void put_q6_k(const Block& block, std::uint8_t* to) {
  for (int half = 0; half < 2; ++half)
    for (int i = 0; i < 32; ++i) {
      const int part = 8 * half + i / 16, at = i % 16;
      std::array<int, 4> codes{};
      for (int k = 0; k < 4; ++k) codes[k] = block.code(part + 2 * k, at);
      to[64 * half + i] = static_cast<std::uint8_t>((codes[0] & 15) | (codes[2] & 15) << 4);
      to[64 * half + 32 + i] = static_cast<std::uint8_t>((codes[1] & 15) | (codes[3] & 15) << 4);
      int high = 0;
      for (int k = 0; k < 4; ++k) high |= codes[k] >> 4 << 2 * k;
      to[128 + 32 * half + i] = static_cast<std::uint8_t>(high);
    }
  for (int part = 0; part < 16; ++part)
    to[192 + part] = static_cast<std::uint8_t>(block.scales[part]);
  put_half(to + 208, block.d);
}

/// Packs `count` blocks: find(numbers, found) looks at kLanes parts of `part` numbers at once, and
/// put(block, to) writes the `bytes` bytes of one.
template <class Find, class Put>
bool pack(const float* from, std::uint8_t* to, std::int64_t count, int part, int bytes, Find find,
          Put put) {
  const int parts = kSuper / part, together = kLanes / parts;
  FoundParts found;
  bool finite = true;
  for (std::int64_t done = 0; done < count; done += together) {
    const auto some = static_cast<int>(std::min<std::int64_t>(together, count - done));
    const auto* numbers = from + done * kSuper;
    std::array<float, kLanes * 32> filled;
    if (some < together) {
      filled.fill(0);
      std::copy_n(numbers, some * kSuper, filled.begin());
      numbers = filled.data();
    }
    find(numbers, found);
    finite = finite && found.finite;
    for (int i = 0; i < some; ++i, to += bytes)
      put(Block{found.d[i], found.dmin[i], found.scales.data() + i * parts,
                found.offsets.data() + i * parts, found.codes, i * parts},
          to);
  }
  return finite;
}

template <class Put>
bool pack_affine(const float* from, std::uint8_t* to, std::int64_t count, int part, int bytes,
                 const AffineRule& rule, Put put) {
  return pack(
      from, to, count, part, bytes,
      [&](const float* numbers, FoundParts& found) { find_affine(numbers, part, rule, found); },
      put);
}

template <class Put>
bool pack_scaled(const float* from, std::uint8_t* to, std::int64_t count, int bytes,
                 const ScaledRule& rule, Put put) {
  return pack(
      from, to, count, 16, bytes,
      [&](const float* numbers, FoundParts& found) { find_scaled(numbers, rule, found); }, put);
}

}  // namespace

// The constants of the rules were found by trying, on normal, heavy-tailed and uneven weights: no
// type loses more than ggml's quantiser, in plain squares and in ggml's own weighted ones.

bool pack_q4_k(const float* from, std::uint8_t* to, std::int64_t count) {
  constexpr AffineRule rule{
      .most = 15, .most_scale = 63, .importance = {2, false}, .first = -3, .step = 0.2f};
  return pack_affine(from, to, count, 32, 144, rule, put_q4_k);
}

bool pack_q5_k(const float* from, std::uint8_t* to, std::int64_t count) {
  constexpr AffineRule rule{
      .most = 31, .most_scale = 63, .importance = {3, false}, .first = -3, .step = 0.2f};
  return pack_affine(from, to, count, 32, 176, rule, put_q5_k);
}

bool pack_q2_k(const float* from, std::uint8_t* to, std::int64_t count) {
  constexpr AffineRule rule{.most = 3,
                            .most_scale = 15,
                            .importance = {0.5f, false},
                            .first = -1.2f,
                            .step = 0.15f,
                            .trials = 16};
  return pack_affine(from, to, count, 16, 84, rule, put_q2_k);
}

bool pack_q3_k(const float* from, std::uint8_t* to, std::int64_t count) {
  constexpr ScaledRule rule{
      .half = 4, .most_scale = 32, .importance = {1, true}, .step = 0.2f, .trials = 11};
  return pack_scaled(from, to, count, 110, rule, put_q3_k);
}

bool pack_q6_k(const float* from, std::uint8_t* to, std::int64_t count) {
  constexpr ScaledRule rule{
      .half = 32, .most_scale = 128, .importance = {1.5f, true}, .step = 0.4f, .trials = 19};
  return pack_scaled(from, to, count, 210, rule, put_q6_k);
}

}  // namespace distorch::convert
