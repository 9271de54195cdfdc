"""Packs the matrices inside the blocks of a diffusion model as bitsandbytes' NF4, and writes what they stand for beside it, for beside_comfyui.py by
hand: make_nf4_file.py IN.safetensors NF4.safetensors NUMBERS.safetensors. Every second matrix has nested magnitudes. From the documented format: codes
of 4 bits of a table, the first of two in the high half; a largest magnitude for each 64; nested: an 8-bit index of a table times a magnitude for each
256 of them, plus an offset."""
import json
import re
import sys

import safetensors
import safetensors.torch
import torch

# The quantiles of a normal distribution that NF4 has.
NF4 = torch.tensor([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
                    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                    0.7229568362236023, 1.0])
BLOCK, NESTED = 64, 256
WHICH = re.compile(r"blocks\.\d+\.(?!.*(_mod|modulation|norm)).*\.weight$")


def nearest(values, table):
    ordered, order = table.sort()
    return order[torch.bucketize(values, (ordered[1:] + ordered[:-1]) / 2)]


def packed(name, weight, nested):
    flat = weight.float().reshape(-1, BLOCK)
    absmax = flat.abs().amax(1)
    state = {"quant_type": "nf4", "blocksize": BLOCK, "dtype": "bfloat16", "shape": list(weight.shape)}
    parts = {"quant_map": NF4.clone()}
    magnitudes = absmax
    if nested:
        table, offset = torch.linspace(-1, 1, 256), absmax.mean()
        rows = torch.nn.functional.pad(absmax - offset, (0, -len(absmax) % NESTED)).reshape(-1, NESTED)
        largest = rows.abs().amax(1)
        index = nearest(rows / largest[:, None], table).reshape(-1)[:len(absmax)]
        magnitudes = table[index] * largest.repeat_interleave(NESTED)[:len(absmax)] + offset
        parts |= {"absmax": index.to(torch.uint8), "nested_absmax": largest, "nested_quant_map": table}
        state |= {"nested_blocksize": NESTED, "nested_offset": float(offset), "nested_dtype": "float32"}
    else:
        parts["absmax"] = absmax
    codes = nearest(flat / absmax[:, None], NF4).reshape(-1, 2).to(torch.uint8)
    numbers = NF4[codes.reshape(-1, BLOCK).long()] * magnitudes[:, None]
    parts["quant_state.bitsandbytes__nf4"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    tensors = {name: (codes[:, 0] << 4 | codes[:, 1])[:, None]} | {f"{name}.{part}": tensor for part, tensor in parts.items()}
    return tensors, numbers.reshape(weight.shape)


def main(source, target, decoded):
    four, plain, count = {}, {}, 0
    with safetensors.safe_open(source, "pt") as file:
        for name in file.keys():
            weight = file.get_tensor(name)
            if weight.dim() == 2 and WHICH.search(name):
                tensors, plain[name] = packed(name, weight, count % 2 == 1)
                four |= tensors
                count += 1
            else:
                four[name] = plain[name] = weight
    safetensors.torch.save_file(four, target)
    safetensors.torch.save_file(plain, decoded)
    print(count, "matrices")


if __name__ == "__main__":
    main(*sys.argv[1:])
