#pragma once
#include <cstdint>

namespace distorch::quant {

/// Which numbers the loops of the CPU write (cpu_numbers.inc).
enum class NumberKind { Float, Half, BFloat };

/// Whether so many bytes of numbers are written past the processor's caches: no usual one has all of
/// them when they are read, and lines that are not fetched before they are overwritten save a third
/// of the memory's time.
constexpr bool passes_caches(std::int64_t bytes) { return bytes >= std::int64_t{32} << 20; }

}  // namespace distorch::quant
