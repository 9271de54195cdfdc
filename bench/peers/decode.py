"""Bytes of float32 numbers a second that `gguf.quants` makes of GGUF blocks, beside bench_decode's of the same machine.

    python decode.py [DECODE.json]      (numpy, gguf; ggml-python where it is there)
"""
import json
import sys
import time

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

np.seterr(all="ignore")
ours = {row["name"]: row["ours"] for row in json.load(open(sys.argv[1]))} if len(sys.argv) > 1 else {}
random = np.random.default_rng(1)
for kind, (elements, size) in GGML_QUANT_SIZES.items():
    if elements == 1:
        continue
    blocks = random.integers(0, 256, (8 * 2**20 // 4 // elements, size), dtype=np.uint8)
    try:
        best = 0.0
        for _ in range(2):
            start = time.perf_counter()
            numbers = dequantize(blocks, kind)
            best = max(best, numbers.nbytes / (time.perf_counter() - start) / 1e9)
    except NotImplementedError:
        continue
    mine = ours.get(kind.name + " to Float")
    print("%-8s gguf.quants %.3f GB/s" % (kind.name, best) + ("; ours %.2f, %.0f x" % (mine, mine / best) if mine else ""))
