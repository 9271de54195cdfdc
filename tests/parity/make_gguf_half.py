"""gguf_half.safetensors: what ComfyUI-GGUF makes of blocks by default, in float16: the first and last blocks of gguf_blocks.safetensors.
NAME.numbers [8, block] float32. GGUF_NODES_DIR: the node package ComfyUI-GGUF; needs torch and the package gguf."""
import importlib.util
import os
import warnings

import gguf
import safetensors.torch
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
spec = importlib.util.spec_from_file_location("dequant", os.path.join(os.environ["GGUF_NODES_DIR"], "dequant.py"))
dequant = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dequant)
warnings.filterwarnings("ignore")
given = safetensors.torch.load_file(os.path.join(HERE, "gguf_blocks.safetensors"))
out = {}
for kind in dequant.dequantize_functions:
    if kind.name == "BF16":
        continue
    blocks = given[kind.name + ".blocks"]
    some = torch.cat([blocks[:4], blocks[-4:]])
    numbers = dequant.dequantize(some, kind, (8, gguf.GGML_QUANT_SIZES[kind][0]))
    assert numbers.dtype == torch.float16
    out[kind.name + ".numbers"] = numbers.float().contiguous()
safetensors.torch.save_file(out, os.path.join(HERE, "gguf_half.safetensors"))
