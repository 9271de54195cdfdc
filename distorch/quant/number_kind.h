#pragma once

namespace distorch::quant {

/// Which numbers the loops of the CPU write (cpu_numbers.inc).
enum class NumberKind { Float, Half, BFloat };

}  // namespace distorch::quant
