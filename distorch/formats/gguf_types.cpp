#include "distorch/formats/gguf_types.h"

#include <algorithm>
#include <array>
#include <utility>

namespace distorch::formats {

namespace {

constexpr std::array<BlockType, 34> kAll = {{
    {0, "F32", 1, 4, DType::F32},  {1, "F16", 1, 2, DType::F16},    {2, "Q4_0", 32, 18, {}},
    {3, "Q4_1", 32, 20, {}},       {6, "Q5_0", 32, 22, {}},         {7, "Q5_1", 32, 24, {}},
    {8, "Q8_0", 32, 34, {}},       {9, "Q8_1", 32, 40, {}},         {10, "Q2_K", 256, 84, {}},
    {11, "Q3_K", 256, 110, {}},    {12, "Q4_K", 256, 144, {}},      {13, "Q5_K", 256, 176, {}},
    {14, "Q6_K", 256, 210, {}},    {15, "Q8_K", 256, 292, {}},      {16, "IQ2_XXS", 256, 66, {}},
    {17, "IQ2_XS", 256, 74, {}},   {18, "IQ3_XXS", 256, 98, {}},    {19, "IQ1_S", 256, 50, {}},
    {20, "IQ4_NL", 32, 18, {}},    {21, "IQ3_S", 256, 110, {}},     {22, "IQ2_S", 256, 82, {}},
    {23, "IQ4_XS", 256, 136, {}},  {24, "I8", 1, 1, DType::I8},     {25, "I16", 1, 2, DType::I16},
    {26, "I32", 1, 4, DType::I32}, {27, "I64", 1, 8, DType::I64},   {28, "F64", 1, 8, DType::F64},
    {29, "IQ1_M", 256, 56, {}},    {30, "BF16", 1, 2, DType::BF16}, {34, "TQ1_0", 256, 54, {}},
    {35, "TQ2_0", 256, 66, {}},    {39, "MXFP4", 32, 17, {}},       {40, "NVFP4", 64, 36, {}},
    {41, "Q1_0", 128, 18, {}},
}};

constexpr std::array<std::pair<std::uint32_t, const char*>, 8> kRemoved = {{{4, "Q4_2"},
                                                                            {5, "Q4_3"},
                                                                            {31, "Q4_0_4_4"},
                                                                            {32, "Q4_0_4_8"},
                                                                            {33, "Q4_0_8_8"},
                                                                            {36, "IQ4_NL_4_4"},
                                                                            {37, "IQ4_NL_4_8"},
                                                                            {38, "IQ4_NL_8_8"}}};

}  // namespace

std::span<const BlockType> block_types() { return kAll; }

const BlockType* block_type(std::uint32_t id) {
  const auto* at =
      std::find_if(kAll.begin(), kAll.end(), [&](const BlockType& type) { return type.id == id; });
  return at == kAll.end() ? nullptr : at;
}

const BlockType* block_type_named(std::string_view name) {
  const auto* at = std::find_if(kAll.begin(), kAll.end(),
                                [&](const BlockType& type) { return name == type.name; });
  return at == kAll.end() ? nullptr : at;
}

const char* removed_block_type(std::uint32_t id) {
  for (const auto& [number, name] : kRemoved)
    if (number == id) return name;
  return nullptr;
}

}  // namespace distorch::formats
