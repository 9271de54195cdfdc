"""Bytes of float32 numbers a second that others make of GGUF blocks, beside bench_decode's of the same machine.

    python decode.py [DECODE.json [LIBGGML]]      (numpy, gguf)

`gguf.quants` of the package gguf, all threads that numpy takes; ggml's own functions (the type traits' `to_float`) in as many threads as
OMP_NUM_THREADS says (default 1), where LIBGGML is a library that has them, such as the one inside the PyPI package xllamacpp.
"""
import ctypes
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize


class Traits(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("block", ctypes.c_int64), ("interleaved", ctypes.c_int64), ("bytes", ctypes.c_size_t),
                ("quantized", ctypes.c_bool), ("to_float", ctypes.c_void_p)]


def best(numbers_bytes, work, rounds=3):
    fastest = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - start)
    return numbers_bytes / fastest / 1e9


def ggml_speed(library, kind, blocks, elements, pool, threads):
    library.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    traits = library.ggml_get_type_traits(int(kind)).contents
    if not traits.to_float or traits.bytes != blocks.shape[1] or traits.block != elements:
        return None
    to_float = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(traits.to_float)
    numbers = np.zeros((len(blocks), elements), np.float32)
    step = -(-len(blocks) // threads)

    def part(first):
        some = blocks[first:first + step]
        to_float(some.ctypes.data, numbers[first:].ctypes.data, some.shape[0] * elements)

    return best(numbers.nbytes, lambda: list(pool.map(part, range(0, len(blocks), step))), 5)


def main():
    np.seterr(all="ignore")
    ours = {row["name"]: row["ours"] for row in json.load(open(sys.argv[1]))} if len(sys.argv) > 1 else {}
    library = ctypes.CDLL(sys.argv[2]) if len(sys.argv) > 2 else None
    random = np.random.default_rng(1)
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    pool = ThreadPoolExecutor(threads)
    for kind, (elements, size) in GGML_QUANT_SIZES.items():
        if elements == 1:
            continue
        mine = ours.get(kind.name + " to Float")
        words = [f"{kind.name:<8}"] + ([f"ours {mine:.2f}"] if mine else [])
        try:
            blocks = random.integers(0, 256, (8 * 2**20 // 4 // elements, size), dtype=np.uint8)
            theirs = best(blocks.shape[0] * elements * 4, lambda: dequantize(blocks, kind), 2)
            words.append(f"gguf.quants {theirs:.3f}" + (f" ({mine / theirs:.0f} x)" if mine else ""))
        except NotImplementedError:
            pass
        if library:
            blocks = random.integers(0, 256, (256 * 2**20 // 4 // elements, size), dtype=np.uint8)
            theirs = ggml_speed(library, kind, blocks, elements, pool, threads)
            if theirs:
                words.append(f"ggml {theirs:.2f}" + (f" ({mine / theirs:.2f} x)" if mine else ""))
        print("; ".join(words), "GB/s", flush=True)


if __name__ == "__main__":
    main()
