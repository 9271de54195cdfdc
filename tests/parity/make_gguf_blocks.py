"""gguf_blocks.safetensors: blocks of every packed GGUF type and what the package `gguf` (0.19) makes of them.

    python make_gguf_blocks.py

NAME.blocks [n, bytes] uint8, NAME.numbers [n, block] float32. Random bytes with scales of ordinary size, and adversarial ones: all
bytes 0, all 255, scales that are the smallest and largest float16, negative, infinite and NaN. Types that the package lists and does
not decode (Q8_1, Q8_K, Q1_0) are decoded here by the layout of ggml's blocks.
"""
import os
import warnings

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize
from safetensors.numpy import save_file

warnings.filterwarnings("ignore")
# Where the float16 (or float32) scales of a block begin.
HALVES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2],
          T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ2_XXS: [0], T.IQ2_XS: [0], T.IQ2_S: [0], T.IQ3_XXS: [0], T.IQ3_S: [0], T.IQ1_S: [0],
          T.IQ4_NL: [0], T.IQ4_XS: [0], T.TQ1_0: [52], T.TQ2_0: [64], T.Q1_0: [0]}
FLOATS = {T.Q8_1: [0], T.Q8_K: [0]}
WILD = np.array([0x0001, 0x8001, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E01, 0x8000, 0x3C00], np.uint16)


def by_layout(blocks, kind):
    if kind == T.Q1_0:
        d = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        bits = np.unpackbits(blocks[:, 2:], axis=1, bitorder="little")
        return d * np.where(bits, 1, -1).astype(np.float32)
    d = blocks[:, :4].copy().view(np.float32)
    first, count = (8, 32) if kind == T.Q8_1 else (4, 256)
    return d * blocks[:, first:first + count].view(np.int8).astype(np.float32)


random = np.random.default_rng(14)
out = {}
for kind, (block, size) in GGML_QUANT_SIZES.items():
    if kind in (T.F32, T.F16, T.BF16, T.F64, T.I8, T.I16, T.I32, T.I64):
        continue
    ordinary, wild = (24, 12) if block == 256 else (64, 40)
    blocks = random.integers(0, 256, (ordinary + wild, size), dtype=np.uint8)
    for at in HALVES.get(kind, []):
        blocks[:ordinary, at:at + 2] = (random.standard_normal((ordinary, 1)) / 50).astype(np.float16).view(np.uint8)
        blocks[ordinary:, at:at + 2] = random.choice(WILD, (wild, 1)).view(np.uint8)
    for at in FLOATS.get(kind, []):
        blocks[:, at:at + 4] = random.standard_normal((ordinary + wild, 1)).astype(np.float32).view(np.uint8)
    blocks[-2] = 0
    blocks[-1] = 255
    numbers = by_layout(blocks, kind) if kind in (T.Q8_1, T.Q8_K, T.Q1_0) else dequantize(blocks, kind)
    out[kind.name + ".blocks"] = blocks
    # The numbers are many and follow from the blocks: enough of them to tell any fault, and all of their bits in one sum.
    keep = np.r_[0:4, ordinary:ordinary + 6, len(blocks) - 2:len(blocks)] if block == 256 else np.arange(0, len(blocks), 3)
    out[kind.name + ".kept"] = keep.astype(np.int32)
    out[kind.name + ".numbers"] = numbers[keep].reshape(len(keep), block)
    bits = np.where(np.isnan(numbers), np.uint32(0x7FC00000), numbers.astype(np.float32).view(np.uint32))
    out[kind.name + ".sum"] = np.array([int(bits.astype(np.uint64).sum() & np.uint64(0x7FFFFFFFFFFFFFFF))], np.int64)
save_file(out, os.path.join(os.path.dirname(__file__), "gguf_blocks.safetensors"))
