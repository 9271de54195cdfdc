#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "distorch/formats/dtype.h"

namespace distorch::formats {

/// A way in which GGUF files store numbers: so many of them in so many bytes, one block behind the
/// other. Source: the PyPI package `gguf` 0.19, GGMLQuantizationType and GGML_QUANT_SIZES.
struct BlockType {
  std::uint32_t id = 0;
  const char* name = "";
  std::int64_t elements = 1;   // of one block
  std::int64_t bytes = 1;      // of one block
  std::optional<DType> plain;  // where the numbers are no blocks but elements of this type
};

/// All of them, by id.
std::span<const BlockType> block_types();
/// Null for a number that is not known.
const BlockType* block_type(std::uint32_t id);
/// Null for a name that is not known.
const BlockType* block_type_named(std::string_view name);
/// What files of earlier years used and nobody reads any more ("Q4_0_4_4"); null for other numbers.
const char* removed_block_type(std::uint32_t id);

}  // namespace distorch::formats
