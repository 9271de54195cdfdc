#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace distorch::convert {

/// A way in which GGUF packs some numbers that lie side by side in a row.
struct BlockType {
  std::string name;  // "Q4_K"
  int numbers = 0;   // of a block
  int bytes = 0;     // of a block
  int ggml_type = 0;
  int file_type = 0;  // "general.file_type" of a file that mostly has it
  /// Packs `count` blocks of numbers that lie one behind the other; null for plain ones. False
  /// where a number is not finite, or too large for a float16 scale of its block.
  bool (*pack)(const float* from, std::uint8_t* to, std::int64_t count) = nullptr;
};

/// F32, F16, BF16, those of one scale a 32 (Q4_0 ... Q8_0) and the K types.
/// Source: the layouts of ggml's blocks (github.com/ggml-org/ggml, ggml-common.h) as facts.
const std::vector<BlockType>& block_types();
/// Null for an unknown name.
const BlockType* block_type_named(const std::string& name);

bool pack_q8_0(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q4_0(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q4_1(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q5_0(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q5_1(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q2_k(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q3_k(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q4_k(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q5_k(const float* from, std::uint8_t* to, std::int64_t count);
bool pack_q6_k(const float* from, std::uint8_t* to, std::int64_t count);

}  // namespace distorch::convert
