#include "distorch/convert/blocks.h"

#include <c10/util/Half.h>

#include <algorithm>

#include "distorch/convert/k_search.h"

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

std::uint16_t to_half(float number) {
  constexpr float most = 65504;
  return c10::Half(std::clamp(number, -most, most)).x;
}
float from_half(std::uint16_t bits) { return c10::Half(bits, c10::Half::from_bits()); }

}  // namespace distorch::convert
