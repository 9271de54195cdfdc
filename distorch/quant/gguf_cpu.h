#pragma once
#include <cstdint>

#include "distorch/quant/number_kind.h"

namespace distorch::quant {

/// Blocks of GGUF files to be decoded on the CPU.
struct BlockJob {
  int type = 0;                          // formats::BlockType::id
  NumberKind kind = NumberKind::Float;   // of the numbers
  const std::uint8_t* blocks = nullptr;  // need no alignment
  void* numbers = nullptr;
  std::int64_t count = 0;             // of the blocks
  const std::int8_t* grid = nullptr;  // grid_of() of the type
  bool past_caches = false;           // see passes_caches()
};

/// Decodes in this thread, by the widest instructions that the processor has. False for a type that
/// is no packed one.
bool decode_on_cpu(const BlockJob& job);

}  // namespace distorch::quant
