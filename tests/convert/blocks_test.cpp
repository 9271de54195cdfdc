#include "distorch/convert/blocks.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <map>

#include "distorch/convert/k_search.h"

using namespace distorch::convert;

namespace {

// Readers of the blocks, written from the format's description and not from the writers.

float half_at(const std::uint8_t* from) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof bits);
  return from_half(bits);
}

int six(const std::uint8_t* s, int part, bool offset) {
  if (part < 4) return s[part + (offset ? 4 : 0)] & 63;
  const int low = offset ? s[part + 4] >> 4 : s[part + 4] & 15;
  return low | s[part - (offset ? 0 : 4)] >> 6 << 4;
}

float read_one(const std::string& type, const std::uint8_t* b, int i) {
  const int word = i % 32, low_half = i % 16, upper = i / 16;
  if (type == "Q8_0") return half_at(b) * static_cast<std::int8_t>(b[2 + i]);
  if (type == "Q4_0") return half_at(b) * ((b[2 + low_half] >> 4 * upper & 15) - 8);
  if (type == "Q4_1") return half_at(b) * (b[4 + low_half] >> 4 * upper & 15) + half_at(b + 2);
  if (type == "Q5_0" || type == "Q5_1") {
    const int start = type == "Q5_0" ? 2 : 4;
    std::uint32_t fifth = 0;
    std::memcpy(&fifth, b + start, 4);
    const int code = (b[start + 4 + low_half] >> 4 * upper & 15) | (fifth >> i & 1) << 4;
    return type == "Q5_0" ? half_at(b) * (code - 16) : half_at(b) * code + half_at(b + 2);
  }
  const int group = i / 64, nibble = i / 32 % 2, part = i / 16;
  const int twos = b[(type == "Q3_K" ? 32 : 16) + i / 128 * 32 + word] >> i / 32 % 4 * 2 & 3;
  if (type == "Q4_K" || type == "Q5_K") {
    const auto* codes = b + (type == "Q4_K" ? 16 : 48);
    int code = codes[32 * group + word] >> 4 * nibble & 15;
    if (type == "Q5_K") code |= (b[16 + word] >> i / 32 & 1) << 4;
    return half_at(b) * six(b + 4, i / 32, false) * code -
           half_at(b + 2) * six(b + 4, i / 32, true);
  }
  if (type == "Q2_K")
    return half_at(b + 80) * (b[part] & 15) * twos - half_at(b + 82) * (b[part] >> 4);
  if (type == "Q3_K") {
    const int low = b[96 + part % 8] >> (part < 8 ? 0 : 4) & 15;
    const int scale = (low | (b[104 + part % 4] >> part / 4 * 2 & 3) << 4) - 32;
    return half_at(b + 108) * scale * (twos - (b[word] >> i / 32 & 1 ? 0 : 4));
  }
  // Q6_K
  const int within = i % 128;
  const int low = b[i / 128 * 64 + within % 64] >> 4 * (within / 64) & 15;
  const int high = b[128 + i / 128 * 32 + word] >> within / 32 * 2 & 3;
  return half_at(b + 208) * static_cast<std::int8_t>(b[192 + part]) * ((low | high << 4) - 32);
}

/// What is lost, beside the numbers themselves.
double error_of(const BlockType& type, const std::vector<float>& numbers) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(type.bytes));
  double lost = 0, all = 0;
  for (std::size_t first = 0; first < numbers.size(); first += type.numbers) {
    type.pack(numbers.data() + first, bytes.data(), 1);
    for (int i = 0; i < type.numbers; ++i) {
      const double wanted = numbers[first + i], d = read_one(type.name, bytes.data(), i) - wanted;
      lost += d * d;
      all += wanted * wanted;
    }
  }
  return std::sqrt(lost / all);
}

std::vector<float> normal(int count) {
  auto numbers = at::randn({count}, at::make_generator<at::CPUGeneratorImpl>(3)) * 0.02;
  numbers = numbers.contiguous();
  return {numbers.const_data_ptr<float>(), numbers.const_data_ptr<float>() + count};
}

}  // namespace

TEST_CASE("blocks: normal weights lose no more than each type allows") {
  // Of normal numbers, relative to their norm.
  const std::map<std::string, double> most = {
      {"Q8_0", 0.0056}, {"Q6_K", 0.0172}, {"Q5_K", 0.0353}, {"Q5_1", 0.0400}, {"Q5_0", 0.0475},
      {"Q4_K", 0.0722}, {"Q4_1", 0.0830}, {"Q4_0", 0.0960}, {"Q3_K", 0.1510}, {"Q2_K", 0.2800}};
  const auto numbers = normal(256 * 64);
  int count = 0;
  for (const auto& type : block_types()) {
    if (!type.pack) continue;
    ++count;
    CAPTURE(type.name);
    CHECK(error_of(type, numbers) < most.at(type.name));
  }
  CHECK(count == static_cast<int>(most.size()));
}

TEST_CASE(
    "blocks: zeros, equal numbers, one number alone and huge ones come back as far as can be") {
  for (const auto& type : block_types()) {
    if (!type.pack) continue;
    CAPTURE(type.name);
    std::vector<float> numbers(256, 0.0f);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(type.bytes));
    type.pack(numbers.data(), bytes.data(), 1);
    for (int i = 0; i < type.numbers; ++i) CHECK(read_one(type.name, bytes.data(), i) == 0.0f);
    for (float value : {0.5f, -3.0f, 60.0f, -0.02f}) {
      std::fill(numbers.begin(), numbers.end(), value);
      CHECK(error_of(type, numbers) < 0.02);
      std::fill(numbers.begin(), numbers.end(), 0.0f);
      numbers[5] = value;
      CHECK(error_of(type, numbers) < 0.05);
    }
  }
}
