"""Writes official.safetensors with the PyPI package `safetensors`: python3 make_safetensors.py (needs torch, safetensors)."""
import pathlib
import torch
from safetensors.torch import save_file

g = torch.Generator().manual_seed(7)
normal = lambda *shape: torch.randn(*shape, generator=g)
tensors = {
    "model.block.0.weight": normal(3, 5).to(torch.float16),
    "model.block.0.bias": normal(3).to(torch.float16),
    "model.block.1.weight": normal(2, 2, 3, 3).to(torch.bfloat16),
    "fp32": normal(4),
    "fp64": normal(2).double(),
    "float8": normal(7).to(torch.float8_e4m3fn),
    "float8_e5m2": normal(5).to(torch.float8_e5m2),
    "ints": torch.arange(6, dtype=torch.int64).reshape(2, 3),
    "int32": torch.arange(3, dtype=torch.int32),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "flags": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "name with \u00e4\u2603 \"quotes\"": normal(1),
}
save_file(tensors, pathlib.Path(__file__).with_name("official.safetensors"), metadata={"format": "pt"})
