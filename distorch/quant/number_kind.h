#pragma once

namespace distorch::quant {

/// Which numbers the loops of the CPU write (cpu_stores.inc).
enum class NumberKind { Float, Half, BFloat };

}  // namespace distorch::quant
