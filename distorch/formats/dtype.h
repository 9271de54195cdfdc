#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

namespace distorch::formats {

/// Element types as files name them. The order is the one in which the safetensors writer lays
/// tensors out (from the end to the start), so that wide types come first in a file.
enum class DType : std::uint8_t {
  BOOL,
  F4,
  F6_E2M3,
  F6_E3M2,
  U8,
  I8,
  F8_E5M2,
  F8_E4M3,
  F8_E8M0,
  I16,
  U16,
  F16,
  BF16,
  I32,
  U32,
  F32,
  C64,
  F64,
  I64,
  U64
};

/// Bits of one element: 4 for F4, 16 for BF16, ...
int bits_of(DType dtype);

/// "BF16", "F8_E4M3", ...: the spelling of safetensors headers.
const char* name_of(DType dtype);

/// The other way round; nothing for an unknown name.
std::optional<DType> dtype_named(std::string_view name);

}  // namespace distorch::formats
