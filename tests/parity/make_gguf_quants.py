"""gguf_quants.safetensors: random weights of three kinds and what ggml's quantisers lose on them.

    python make_gguf_quants.py LIBGGML

LIBGGML: a library that has ggml_quantize_chunk, such as the one inside the PyPI package xllamacpp (llama.cpp of October 2026). KIND
[64, 256] bf16; KIND.TYPE [2] float32: the norm of what is lost over that of the numbers, plainly and with ggml's own weights of each number
(weight() below). `numbers` are normal, with tails of Student's t with four degrees of freedom, and normal with a hundredth of the columns
twelve times as large.
"""
import ctypes
import os
import sys

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize
from safetensors.torch import save_file

ROWS, WIDTH = 64, 256
TYPES = (T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K)


def weight(x, kind):
    """How much ggml lets a number count: |x| (with the root mean square of its 32 beside it in Q4_K and Q5_K), x² in Q3_K and Q6_K."""
    if kind in (T.Q4_K, T.Q5_K):
        parts = x.reshape(-1, 32)
        return (np.sqrt((parts * parts).mean(1, keepdims=True)) + abs(parts)).reshape(x.shape)
    return abs(x) if kind == T.Q2_K else x * x if kind in (T.Q3_K, T.Q6_K) else np.ones_like(x)


def lost(x, got, w):
    return np.sqrt((w * (got - x) ** 2).sum() / (w * x * x).sum())


def packed_by_ggml(library, x, kind):
    block, size = GGML_QUANT_SIZES[kind]
    blocks = np.zeros((ROWS, WIDTH // block * size), np.uint8)
    library.ggml_quantize_chunk(int(kind), x.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(0),
                                ctypes.c_int64(ROWS), ctypes.c_int64(WIDTH), None)
    return blocks


def main():
    library = ctypes.CDLL(sys.argv[1])
    random = np.random.default_rng(14)
    normal = random.standard_normal((ROWS, WIDTH)) * 0.02
    uneven = random.standard_normal((ROWS, WIDTH)) * 0.02
    uneven[:, random.integers(0, WIDTH, WIDTH // 100 + 1)] *= 12
    out = {}
    for name, numbers in (("normal", normal), ("heavy", random.standard_t(4, (ROWS, WIDTH)) * 0.02), ("uneven", uneven)):
        out[name] = torch.from_numpy(numbers).to(torch.bfloat16)
        x = out[name].float().numpy()
        for kind in TYPES:
            got = dequantize(packed_by_ggml(library, x, kind), kind).reshape(x.shape).astype(np.float64)
            wide = x.astype(np.float64)
            both = [lost(wide, got, np.ones_like(wide)), lost(wide, got, weight(wide, kind))]
            out[f"{name}.{kind.name}"] = torch.tensor(both, dtype=torch.float32)
    save_file(out, os.path.join(os.path.dirname(os.path.abspath(__file__)), "gguf_quants.safetensors"))


if __name__ == "__main__":
    main()
