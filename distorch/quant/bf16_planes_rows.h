#pragma once
#include <array>
#include <cstdint>
#include <span>

#include "distorch/quant/bf16_planes.h"

/// Rows of the form bf16_planes on the CPU. For bf16_planes.cpp only.
namespace distorch::quant::planes {

struct RowBytes {
  const std::uint8_t* planes = nullptr;     // `numbers` of them
  const std::uint8_t* codes = nullptr;      // (numbers + 1) / 2
  const std::uint8_t* exponents = nullptr;  // the table and the entries behind it
  std::int64_t exponent_bytes = 0;
  std::int64_t numbers = 0;
};

/// Writes the row's numbers to `to` in bf16, or in float32 with `wide`. Vectors of the widest kind
/// that this machine has (Highway, chosen at run time).
void unpack_row(const RowBytes& row, void* to, bool wide);

/// The exponents that a row's codes stand for, and how many of its numbers have another.
struct RowTable {
  std::array<std::uint8_t, kTable> exponents{};
  std::int64_t escapes = 0;
};
RowTable table_of(std::span<const std::uint16_t> row);

/// Packs the bits of a row's numbers. `exponents` has room for the table and all escapes.
void pack_row(std::span<const std::uint16_t> row, const RowTable& table, std::uint8_t* planes,
              std::uint8_t* codes, std::span<std::uint8_t> exponents);

}  // namespace distorch::quant::planes
