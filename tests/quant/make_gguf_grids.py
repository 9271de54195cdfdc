"""distorch/quant/gguf_grid_bits.h: which points the IQ types of GGUF files choose from.

    python make_gguf_grids.py > ../../distorch/quant/gguf_grid_bits.h

A grid is a set of points whose coordinates are few levels. Read as a number in that base, first coordinate least, its points ascend:
one bit for each number that is a point says it all. Reads the package `gguf` (0.19).
"""
import gguf.quants as q
import numpy as np

GRIDS = [("IQ2_XXS", "kIq2Xxs"), ("IQ2_XS", "kIq2Xs"), ("IQ2_S", "kIq2S"), ("IQ3_XXS", "kIq3Xxs"), ("IQ3_S", "kIq3S"),
         ("IQ1_S", "kIq1")]

print("""#pragma once

/// Which points the IQ types of GGUF files choose from, made by tests/quant/make_gguf_grids.py: bit n
/// (hexadecimal, four to a letter, least first) says whether the point whose coordinates are the
/// digits of n, first digit least, belongs to the grid.
namespace distorch::quant::grid_bits {
""")
for name, ours in GRIDS:
    c = getattr(q, name)
    c.init_grid()
    points = c.grid.reshape(c.grid_shape)
    levels = list(c.grid_map)
    digits = np.vectorize(levels.index)(points)
    numbers = (digits * len(levels) ** np.arange(digits.shape[1])).sum(1)
    assert (np.diff(numbers) > 0).all()
    bits = np.zeros(-(-len(levels) ** digits.shape[1] // 4) * 4, int)
    bits[numbers] = 1
    text = "".join("%x" % int((four * [1, 2, 4, 8]).sum()) for four in bits.reshape(-1, 4))
    print("inline constexpr const char* %s =" % ours)
    lines = [text[i:i + 92] for i in range(0, len(text), 92)]
    print("\n".join('    "%s"' % line for line in lines) + ";\n")
print("}  // namespace distorch::quant::grid_bits")
