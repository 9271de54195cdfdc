#pragma once
#include <cstdint>

#include "distorch/quant/number_kind.h"

// Rows of numbers of 8 and of 4 bits as plain ones, in the machine's widest vectors (Highway, chosen
// at run time): number · factor, in float32, then rounded once.
namespace distorch::quant {

enum class SmallFloat {
  E4M3,  // 8 bits, no infinity: float8_e4m3fn
  E5M2,  // 8 bits: float8_e5m2
  E2M1,  // 4 bits, two a byte, the first in the high half
};

struct SmallFloats {
  SmallFloat type = SmallFloat::E4M3;
  NumberKind kind = NumberKind::Float;  // of what is written
  const std::uint8_t* from = nullptr;
  void* to = nullptr;
  std::int64_t count = 0;          // of numbers; even for E2M1
  const float* factors = nullptr;  // one for each `run` numbers from the first on
  std::int64_t run = 1;            // even for E2M1
  bool past_caches = false;        // see passes_caches()
};

void decode_small_floats(const SmallFloats& job);

}  // namespace distorch::quant
