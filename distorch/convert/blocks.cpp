#include "distorch/convert/blocks.h"

#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace distorch::convert {

const std::vector<BlockType>& block_types() {
  static const std::vector<BlockType> list = {
      {"F32", 1, 4, 0, 0, nullptr},          {"F16", 1, 2, 1, 1, nullptr},
      {"BF16", 1, 2, 30, 32, nullptr},       {"Q4_0", 32, 18, 2, 2, pack_q4_0},
      {"Q4_1", 32, 20, 3, 3, pack_q4_1},     {"Q5_0", 32, 22, 6, 8, pack_q5_0},
      {"Q5_1", 32, 24, 7, 9, pack_q5_1},     {"Q8_0", 32, 34, 8, 7, pack_q8_0},
      {"Q2_K", 256, 84, 10, 10, pack_q2_k},  {"Q3_K", 256, 110, 11, 12, pack_q3_k},
      {"Q4_K", 256, 144, 12, 15, pack_q4_k}, {"Q5_K", 256, 176, 13, 17, pack_q5_k},
      {"Q6_K", 256, 210, 14, 18, pack_q6_k},
  };
  return list;
}

const BlockType* block_type_named(const std::string& name) {
  for (const auto& type : block_types())
    if (type.name == name) return &type;
  return nullptr;
}

std::uint16_t to_half(float number) { return c10::Half(number).x; }
float from_half(std::uint16_t bits) { return c10::Half(bits, c10::Half::from_bits()); }

namespace {

constexpr int kBlock = 32;

void put_half(std::uint8_t* to, float number) {
  const auto bits = to_half(number);
  std::memcpy(to, &bits, sizeof bits);
}

/// The number that is furthest from zero, with its sign.
float furthest(const float* from) {
  return *std::max_element(from, from + kBlock,
                           [](float a, float b) { return std::abs(a) < std::abs(b); });
}

/// Codes of `bits` bits of a block: the lower four of number i beside those of number i + 16, the
/// fifth in a word before them.
void put_codes(const std::array<int, kBlock>& codes, std::uint8_t* high, std::uint8_t* low) {
  std::uint32_t fifth = 0;
  for (int i = 0; i < kBlock / 2; ++i) {
    low[i] = static_cast<std::uint8_t>((codes[i] & 15) | (codes[i + kBlock / 2] & 15) << 4);
    fifth |= static_cast<std::uint32_t>(codes[i] >> 4) << i;
    fifth |= static_cast<std::uint32_t>(codes[i + kBlock / 2] >> 4) << (i + kBlock / 2);
  }
  if (high) std::memcpy(high, &fifth, sizeof fifth);
}

/// Numbers as (code - half) · d: the furthest one is met exactly, at the end that reaches further.
std::array<int, kBlock> signed_codes(const float* from, int half, float& d) {
  d = furthest(from) / static_cast<float>(-half);
  const float inverse = d != 0 ? 1 / d : 0;
  std::array<int, kBlock> codes{};
  for (int i = 0; i < kBlock; ++i)
    codes[i] = std::clamp(static_cast<int>(from[i] * inverse + static_cast<float>(half) + 0.5f), 0,
                          2 * half - 1);
  return codes;
}

/// Numbers as code · d + least.
std::array<int, kBlock> offset_codes(const float* from, int most, float& d, float& least) {
  const auto [low, high] = std::minmax_element(from, from + kBlock);
  least = *low;
  d = (*high - *low) / static_cast<float>(most);
  const float inverse = d != 0 ? 1 / d : 0;
  std::array<int, kBlock> codes{};
  for (int i = 0; i < kBlock; ++i)
    codes[i] = std::clamp(static_cast<int>((from[i] - least) * inverse + 0.5f), 0, most);
  return codes;
}

}  // namespace

void pack_q8_0(const float* from, std::uint8_t* to) {
  const float d = std::abs(furthest(from)) / 127, inverse = d != 0 ? 1 / d : 0;
  put_half(to, d);
  for (int i = 0; i < kBlock; ++i)
    to[2 + i] = static_cast<std::uint8_t>(static_cast<int>(std::round(from[i] * inverse)));
}

void pack_q4_0(const float* from, std::uint8_t* to) {
  float d = 0;
  const auto codes = signed_codes(from, 8, d);
  put_half(to, d);
  put_codes(codes, nullptr, to + 2);
}

void pack_q5_0(const float* from, std::uint8_t* to) {
  float d = 0;
  const auto codes = signed_codes(from, 16, d);
  put_half(to, d);
  put_codes(codes, to + 2, to + 6);
}

void pack_q4_1(const float* from, std::uint8_t* to) {
  float d = 0, least = 0;
  const auto codes = offset_codes(from, 15, d, least);
  put_half(to, d);
  put_half(to + 2, least);
  put_codes(codes, nullptr, to + 4);
}

void pack_q5_1(const float* from, std::uint8_t* to) {
  float d = 0, least = 0;
  const auto codes = offset_codes(from, 31, d, least);
  put_half(to, d);
  put_half(to + 2, least);
  put_codes(codes, to + 4, to + 8);
}

}  // namespace distorch::convert
