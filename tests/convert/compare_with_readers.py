"""Compares what `distorch convert` writes with the packages safetensors and gguf (PyPI; needs torch and numpy too).

    python compare_with_readers.py PROGRAM

Writes a small random FLUX-like model, converts it to every type and reads the results with those packages: names, shapes, metadata, and how much
every type loses, beside what the gguf package's own quantisers lose where it has them. Exit status 1 where a file cannot be read, a tensor differs
in shape or a type loses more than that. By hand: the packages are no dependency of the tests.
"""
import json
import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


def model():
    torch.manual_seed(1)
    tensors = {}
    for i in range(2):
        for name, shape in (("img_attn.qkv", (768, 512)), ("img_mlp.0", (1024, 512)), ("txt_attn.proj", (512, 256))):
            tensors[f"double_blocks.{i}.{name}.weight"] = (torch.randn(shape) * 0.02).to(torch.bfloat16)
            tensors[f"double_blocks.{i}.{name}.bias"] = (torch.randn(shape[0]) * 0.02).to(torch.bfloat16)
    tensors["double_blocks.0.img_attn.norm.query_norm.scale"] = torch.ones(64)
    tensors["conv.weight"] = (torch.randn(8, 4, 2, 3, 3) * 0.1).to(torch.bfloat16)
    tensors["img_in.weight"] = (torch.randn(512, 64) * 0.02).to(torch.bfloat16)
    return tensors


def loss(got, wanted):
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


def planes(file, name):
    """The documented layout (docs/formats.md), in numpy."""
    plane, codes, rows = (file[name + end].numpy() for end in ("", "_codes", "_exponents"))
    flat = plane.reshape(plane.shape[0], -1).astype(np.uint32)
    n = flat.shape[1]
    code = np.stack([codes & 15, codes >> 4], -1).reshape(codes.shape[0], -1)[:, :n]
    exponent = np.take_along_axis(rows[:, :16], code, 1).astype(np.uint32)
    for row in range(rows.shape[0]):
        for entry in rows[row, 16:].reshape(-1, 4).astype(np.int64):
            place = entry[1] | entry[2] << 8 | entry[3] << 16
            if place < n:
                exponent[row, place] = entry[0]
    bits = (flat & 128) << 8 | exponent << 7 | flat & 127
    return torch.from_numpy(bits.astype(np.uint16).view(np.int16).reshape(plane.shape)).view(torch.bfloat16)


def convert(program, source, target, *words):
    subprocess.run([program, "convert", source, target, "--quiet", *words], check=True)


def check_safetensors(program, source, folder, tensors):
    for kind in ("bf16", "f16", "f32", "packed", "fp8_scaled"):
        target = os.path.join(folder, kind + ".safetensors")
        convert(program, source, target, "--type", kind)
        file = load_file(target)
        with safe_open(target, "pt") as f:
            assert f.metadata() == {"title": "tiny"}, f.metadata()
        worst = 0
        for name, wanted in tensors.items():
            got = file[name]
            assert got.shape == wanted.shape, name
            if name + "_codes" in file:
                got = planes(file, name)
                assert torch.equal(got.view(torch.int16), wanted.view(torch.int16)), name
            elif got.dtype == torch.float8_e4m3fn:
                base = name.removesuffix("weight")
                assert json.loads(bytes(file[base + "comfy_quant"].tolist())) == {"format": "float8_e4m3fn"}
                got = got.float() * file[base + "weight_scale"]
            worst = max(worst, loss(got, wanted))
        print(f"{kind}: {os.path.getsize(target)} bytes, worst loss {worst:.5f}")


def check_gguf(program, source, folder, tensors):
    fine = True
    for kind in BLOCKS:
        target = os.path.join(folder, kind + ".gguf")
        convert(program, source, target, "--type", kind)
        reader = gguf.GGUFReader(target)
        assert {t.name for t in reader.tensors} == set(tensors)
        ours, theirs = [], []
        for tensor in reader.tensors:
            wanted = tensors[tensor.name]
            got = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type))).reshape(wanted.shape)
            if tensor.tensor_type.name != kind:
                assert loss(got, wanted) == 0, tensor.name
                continue
            ours.append(loss(got, wanted))
            try:
                packed = gguf.quants.quantize(wanted.float().numpy(), tensor.tensor_type)
                theirs.append(loss(torch.from_numpy(gguf.quants.dequantize(packed, tensor.tensor_type)), wanted))
            except NotImplementedError:
                pass
        shape = reader.get_field("comfy.gguf.orig_shape.conv.weight")
        assert [int(shape.parts[i][0]) for i in shape.data] == list(tensors["conv.weight"].shape)
        worst = max(ours)
        print(f"{kind}: {os.path.getsize(target)} bytes, {len(ours)} tensors, worst loss {worst:.5f}"
              + (f", gguf's quantiser {max(theirs):.5f}" if theirs else ""))
        fine = fine and (not theirs or worst <= max(theirs) * 1.0001)
    return fine


def check_comfy(program, source, folder, tensors):
    """int8 and nvfp4 beside what the package comfy-kitchen makes of the same numbers, bit for bit (where it is installed)."""
    try:
        import comfy_kitchen
        from comfy_kitchen import tensor as layouts
    except ImportError:
        print("int8, nvfp4: not compared, comfy_kitchen is not installed")
        return True
    for name in comfy_kitchen.list_backends():
        if name != "eager":
            comfy_kitchen.registry.disable(name)
    fine = True
    for kind, layout, words in (("int8", layouts.TensorWiseINT8Layout, {"per_channel": True, "convrot": True}),
                                ("nvfp4", layouts.TensorCoreNVFP4Layout, {})):
        target = os.path.join(folder, kind + ".safetensors")
        convert(program, source, target, "--type", kind)
        file = load_file(target)
        different = total = 0
        for name, wanted in tensors.items():
            if name.removesuffix("weight") + "comfy_quant" not in file:
                assert torch.equal(file[name], wanted), name
                continue
            values, parameters = layout.quantize(wanted.float(), **words)
            for end, tensor in layout.state_dict_tensors(values, parameters).items():
                got = file[name + end]
                assert got.shape == tensor.shape and got.dtype == tensor.dtype, (name, end, got.shape, tensor.shape)
                if tensor.element_size() == 1:
                    different += int((got.view(torch.uint8) != tensor.view(torch.uint8)).sum())
                    total += got.numel()
                else:
                    assert torch.allclose(got, tensor, rtol=1e-6), (name, end)
        print(f"{kind}: {os.path.getsize(target)} bytes, {different} of {total} bytes differ from comfy_kitchen's")
        # Sums of a rotation in another order may round a number at the middle of two to the other one.
        fine = fine and different <= total * 1e-4
    return fine


def main():
    program = os.path.abspath(sys.argv[1])
    tensors = model()
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "in.safetensors")
        save_file(tensors, source, {"title": "tiny"})
        check_safetensors(program, source, folder, tensors)
        fine = check_comfy(program, source, folder, tensors)
        fine = check_gguf(program, source, folder, tensors) and fine
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
