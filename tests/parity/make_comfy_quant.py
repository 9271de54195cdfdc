"""comfy_quant.*: packed weights, what they stand for and products with them, by the eager back end of comfy-kitchen (ComfyUI 0.33).

Needs torch and the package comfy-kitchen, no checkout. All bit patterns are among the packed numbers; bytes are kept as uint8.
"""
import json
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import comfy_kitchen as ck
import safetensors.torch
import torch
from comfy_kitchen import tensor as layouts
from comfy_kitchen.backends.eager import convrot_w4a4, quantization, w4a8_int8
from comfy_kitchen.float_utils import to_blocked

torch.set_num_threads(1)
for name in ck.list_backends():
    if name != "eager":
        ck.registry.disable(name)
g = torch.Generator().manual_seed(7)
out, cases = {}, []
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def bytes_of(t):
    return t.contiguous().view(torch.uint8) if t.dtype != torch.float32 else t.contiguous()


def put(name, t):
    out[name] = bytes_of(t).clone()


def random_bytes(rows, columns):
    """Every byte occurs, in random order."""
    count = rows * columns
    return (torch.arange(count) % 256)[torch.randperm(count, generator=g)].to(torch.uint8).view(rows, columns)


def decoded(name, make):
    for short, dtype in TYPES.items():
        put(f"{name}.{short}", make(dtype))


# nvfp4: two tiles of rows, six blocks a row; every byte but NaN as a scale.
scales = random_bytes(136, 6)
scales[scales & 127 == 127] = 126
values, whole = random_bytes(136, 48), torch.tensor(0.0371)
blocked = to_blocked(scales.view(torch.float8_e4m3fn), flatten=False)
put("nvfp4.values", values)
put("nvfp4.scale", blocked)
put("nvfp4.whole", whole)
decoded("nvfp4", lambda d: quantization.dequantize_nvfp4(values, whole, blocked, d))

# mxfp8: every exponent but those of infinities and NaN.
exponents = random_bytes(136, 2)
exponents[exponents > 240] = 120
eights = random_bytes(136, 64)
eights[eights & 127 == 127] = 1
blocked8 = to_blocked(exponents, flatten=False)
put("mxfp8.values", eights)
put("mxfp8.scale", blocked8)
decoded("mxfp8", lambda d: quantization.dequantize_mxfp8(eights.view(torch.float8_e4m3fn), blocked8.view(torch.float8_e8m0fnu), d))

# Inputs of products: usual rows, one of zeros, one with an outlier, one of halves, tiny and large ones.
x = torch.randn(7, 512, generator=g)
x[1] = 0
x[2, 100] = 300
x[3] = torch.arange(512) % 13 * 0.5 - 3
x[4] *= 1e-20
x[5] *= 1e20
bias = torch.randn(8, generator=g)
put("x", x)
put("bias", bias)


def product(name, y):
    put(f"{name}.y", y)


# int8: one scale, one a row, rotated in groups of 256, 64 and 4.
whole8 = random_bytes(8, 512).view(torch.int8)
row_scale = torch.rand(8, 1, generator=g) * 0.01 + 1e-4
put("int8.values", whole8)
put("int8.scale", row_scale)
decoded("int8", lambda d: quantization.dequantize_int8_simple(whole8, row_scale).to(d))
product("int8", quantization.int8_linear(x, whole8, row_scale, bias, torch.float32))
product("int8_one", quantization.int8_linear(x, whole8, row_scale[0, 0], None, torch.float32))
for group in (256, 64):
    put(f"int8_{group}.f32", quantization.dequantize_int8_convrot_weight(whole8, row_scale, group))
    product(f"int8_{group}", quantization.int8_linear(x, whole8, row_scale, bias, torch.float32, True, group))

# Four bits of a code book, and without one.
nibbles = random_bytes(8, 256).view(torch.int8)
channel = torch.rand(8, generator=g) * 0.01 + 1e-4
codebook = torch.tensor(w4a8_int8._FIXED_LUT)
for group in (16, 4, 32):
    relative = (torch.rand(8, 512 // group, generator=g) * 140).to(torch.float8_e4m3fn)
    name = f"w4a8_{group}"
    put(f"{name}.values", nibbles)
    put(f"{name}.relative", relative)
    put(f"{name}.channel", channel)
    table = None if group == 4 else codebook
    if table is not None:
        put(f"{name}.codebook", table)
    put(f"{name}.whole", w4a8_int8._dequant_int4_grouped_to_int8(nibbles, relative, table, group))
    if group == 16:
        put(f"{name}.f32", w4a8_int8.dequantize_w4a8_int8_weight(nibbles, relative, channel, table, None, group, 256, torch.float32))
    product(name, w4a8_int8.w4a8_int8_linear(x, nibbles, relative, channel, table, None, bias, group, 256, torch.float32))

put("w4a4.values", nibbles)
put("w4a4.scale", channel)
put("w4a4.f32", convrot_w4a4.dequantize_convrot_w4a4_weight(nibbles, channel, 256))
product("w4a4", convrot_w4a4.convrot_w4a4_linear(x, nibbles, channel, bias, 256))

# The other direction.
w = torch.randn(24, 256, generator=g) * torch.logspace(-3, 1, 24)[:, None]
w[5] = 0
w[6, :32] = 0
w[7] = torch.arange(256) % 25 * 0.25 - 3
put("w", w)
for name, layout, options in (
        ("int8", "TensorWiseINT8Layout", {}), ("int8_rows", "TensorWiseINT8Layout", {"per_channel": True}),
        ("int8_rotated", "TensorWiseINT8Layout", {"per_channel": True, "convrot": True, "convrot_groupsize": 256}),
        ("nvfp4", "TensorCoreNVFP4Layout", {}), ("mxfp8", "TensorCoreMXFP8Layout", {}),
        ("w4a4", "TensorCoreConvRotW4A4Layout", {"convrot_groupsize": 256})):
    q, p = getattr(layouts, layout).quantize(w, **options)
    for suffix, t in getattr(layouts, layout).state_dict_tensors(q, p).items():
        put(f"made.{name}{suffix or '.values'}", t)

here = os.path.dirname(os.path.abspath(__file__))
path = os.path.join(here, "comfy_quant")
safetensors.torch.save_file(out, path + ".safetensors")
size = os.path.getsize(path + ".safetensors")
assert size < 400_000, size
with open(path + ".json", "w", encoding="utf-8") as f:
    json.dump({"made with": {"torch": torch.__version__, "comfy-kitchen": getattr(ck, "__version__", "")},
               "tensors": {k: [str(t.dtype)[6:], list(t.shape)] for k, t in out.items()}}, f)
    f.write("\n")
print(size, "bytes")
