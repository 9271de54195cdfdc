"""Writes an all-in-one checkpoint with the tensor names, shapes and size of Stable Diffusion 1.5 in float16 (1131 tensors, 2.13 GB) and
random weights that give a picture which is neither NaN nor flat: make_checkpoint.py FILE [--seed N] [--tiny]
--tiny: the same names, narrow. The same seed gives the same bytes on every machine; numbers come out of one pool of normals, so that
it takes seconds. Tensors lie in the order in which safetensors writes them: by size of the dtype, then by name."""
import argparse
import json
import math
import os
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

POOL = 15485863  # a prime: rows of a matrix do not repeat
PIECE = 1 << 22  # numbers a thread makes at once


@dataclass
class Widths:
    unet: tuple = (320, 640, 1280, 1280)  # by level, the last one without attention
    context: int = 768                    # of the text, and of the text encoder
    text_layers: int = 12
    vae: tuple = (128, 256, 512, 512)     # by level


TINY = Widths(unet=(32, 64, 64, 64), context=64, text_layers=2, vae=(32, 32, 64, 64))
VOCABULARY, POSITIONS = 49408, 77


class Names:
    """Shapes by full name."""

    def __init__(self):
        self.shapes = {}

    def norm(self, name, width):
        self.shapes[name + ".weight"] = self.shapes[name + ".bias"] = (width,)

    def linear(self, name, in_, out, bias=True):
        self.shapes[name + ".weight"] = (out, in_)
        if bias:
            self.shapes[name + ".bias"] = (out,)

    def conv(self, name, in_, out, kernel=3):
        self.shapes[name + ".weight"] = (out, in_, kernel, kernel)
        self.shapes[name + ".bias"] = (out,)

    def res(self, s, parts, in_, out):
        norm1, conv1, norm2, conv2, shortcut = parts
        self.norm(f"{s}.{norm1}", in_)
        self.conv(f"{s}.{conv1}", in_, out)
        self.norm(f"{s}.{norm2}", out)
        self.conv(f"{s}.{conv2}", out, out)
        if in_ != out:
            self.conv(f"{s}.{shortcut}", in_, out, 1)


def unet(n, p, w):
    time = 4 * w.unet[0]

    def res(s, in_, out):
        n.res(s, ("in_layers.0", "in_layers.2", "out_layers.0", "out_layers.3", "skip_connection"), in_, out)
        n.linear(f"{s}.emb_layers.1", time, out)

    def transformer(s, width):
        n.norm(f"{s}.norm", width)
        n.conv(f"{s}.proj_in", width, width, 1)
        n.conv(f"{s}.proj_out", width, width, 1)
        b = f"{s}.transformer_blocks.0"
        for i in "123":
            n.norm(f"{b}.norm{i}", width)
        for attention, source in (("attn1", width), ("attn2", w.context)):
            n.linear(f"{b}.{attention}.to_q", width, width, bias=False)
            n.linear(f"{b}.{attention}.to_k", source, width, bias=False)
            n.linear(f"{b}.{attention}.to_v", source, width, bias=False)
            n.linear(f"{b}.{attention}.to_out.0", width, width)
        n.linear(f"{b}.ff.net.0.proj", width, 8 * width)
        n.linear(f"{b}.ff.net.2", 4 * width, width)

    n.linear(f"{p}.time_embed.0", w.unet[0], time)
    n.linear(f"{p}.time_embed.2", time, time)
    n.conv(f"{p}.input_blocks.0.0", 4, w.unet[0])
    last, width, stage, skips = len(w.unet) - 1, w.unet[0], 1, [w.unet[0]]
    for level, out in enumerate(w.unet):
        for _ in range(2):
            res(f"{p}.input_blocks.{stage}.0", width, out)
            if level < last:
                transformer(f"{p}.input_blocks.{stage}.1", out)
            width, stage = out, stage + 1
            skips.append(width)
        if level < last:
            n.conv(f"{p}.input_blocks.{stage}.0.op", width, width)
            stage += 1
            skips.append(width)
    res(f"{p}.middle_block.0", width, width)
    transformer(f"{p}.middle_block.1", width)
    res(f"{p}.middle_block.2", width, width)
    stage = 0
    for level, out in reversed(list(enumerate(w.unet))):
        for j in range(3):
            s = f"{p}.output_blocks.{stage}"
            res(f"{s}.0", width + skips.pop(), out)
            if level < last:
                transformer(f"{s}.1", out)
            if level > 0 and j == 2:
                n.conv(f"{s}.{2 if level < last else 1}.conv", out, out)
            width, stage = out, stage + 1
    n.norm(f"{p}.out.0", width)
    n.conv(f"{p}.out.2", width, 4)


def vae(n, p, w):
    def res(s, in_, out):
        n.res(s, ("norm1", "conv1", "norm2", "conv2", "nin_shortcut"), in_, out)

    def middle(s, width):
        res(f"{s}.block_1", width, width)
        n.norm(f"{s}.attn_1.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            n.conv(f"{s}.attn_1.{part}", width, width, 1)
        res(f"{s}.block_2", width, width)

    last, width = len(w.vae) - 1, w.vae[0]
    n.conv(f"{p}.encoder.conv_in", 3, width)
    for level, out in enumerate(w.vae):
        for j in range(2):
            res(f"{p}.encoder.down.{level}.block.{j}", width, out)
            width = out
        if level < last:
            n.conv(f"{p}.encoder.down.{level}.downsample.conv", width, width)
    middle(f"{p}.encoder.mid", width)
    n.norm(f"{p}.encoder.norm_out", width)
    n.conv(f"{p}.encoder.conv_out", width, 8)
    n.conv(f"{p}.quant_conv", 8, 8, 1)
    n.conv(f"{p}.post_quant_conv", 4, 4, 1)
    n.conv(f"{p}.decoder.conv_in", 4, width)
    middle(f"{p}.decoder.mid", width)
    for level, out in reversed(list(enumerate(w.vae))):
        for j in range(3):
            res(f"{p}.decoder.up.{level}.block.{j}", width, out)
            width = out
        if level > 0:
            n.conv(f"{p}.decoder.up.{level}.upsample.conv", width, width)
    n.norm(f"{p}.decoder.norm_out", width)
    n.conv(f"{p}.decoder.conv_out", width, 3)


def text(n, p, w):
    n.shapes[f"{p}.embeddings.token_embedding.weight"] = (VOCABULARY, w.context)
    n.shapes[f"{p}.embeddings.position_embedding.weight"] = (POSITIONS, w.context)
    n.shapes[f"{p}.embeddings.position_ids"] = (1, POSITIONS)
    for i in range(w.text_layers):
        s = f"{p}.encoder.layers.{i}"
        n.norm(f"{s}.layer_norm1", w.context)
        n.norm(f"{s}.layer_norm2", w.context)
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            n.linear(f"{s}.self_attn.{part}", w.context, w.context)
        n.linear(f"{s}.mlp.fc1", w.context, 4 * w.context)
        n.linear(f"{s}.mlp.fc2", 4 * w.context, w.context)
    n.norm(f"{p}.final_layer_norm", w.context)


def shapes(widths):
    names = Names()
    unet(names, "model.diffusion_model", widths)
    vae(names, "first_stage_model", widths)
    text(names, "cond_stage_model.transformer.text_model", widths)
    return names.shapes


def scale_of(name, shape):
    """Mean and deviation: outputs of every layer stay near the size of its inputs."""
    if name.endswith(".bias"):
        return 0, 0.02
    if len(shape) == 1:
        return 1, 0.05
    if "embedding" in name:
        return 0, 0.02
    return 0, 1 / math.sqrt(math.prod(shape[1:]))


def write(path, seed, widths):
    return write_shapes(path, seed, shapes(widths))


def write_shapes(path, seed, by_name):
    """The same of any names and shapes."""
    is_index = lambda name: name.endswith(".position_ids")
    tensors = sorted(by_name.items(), key=lambda entry: (not is_index(entry[0]), entry[0]))
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        bytes_ = (8 if is_index(name) else 2) * math.prod(shape)
        header[name] = {"dtype": "I64" if is_index(name) else "F16", "shape": list(shape), "data_offsets": [offset, offset + bytes_]}
        offset += bytes_
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    start = 8 + len(encoded)
    pool = np.random.default_rng(seed).standard_normal(POOL, dtype=np.float32)
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
    os.pwrite(fd, struct.pack("<Q", len(encoded)) + encoded, 0)

    def put(values, at):
        view = memoryview(np.ascontiguousarray(values).view(np.uint8))
        while view:
            done = os.pwrite(fd, view, at)
            view, at = view[done:], at + done

    def piece(name, shape, first, count):
        mean, deviation = scale_of(name, shape)
        begin = (zlib.crc32(name.encode()) + first) % POOL
        values = pool[begin:begin + count]
        if len(values) < count:
            values = np.concatenate([values, pool[:count - len(values)]])
        put((values * np.float32(deviation) + np.float32(mean)).astype(np.float16), start + header[name]["data_offsets"][0] + 2 * first)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        jobs = []
        for name, shape in tensors:
            if is_index(name):
                put(np.arange(POSITIONS, dtype=np.int64), start + header[name]["data_offsets"][0])
                continue
            total = math.prod(shape)
            for first in range(0, total, PIECE):
                jobs.append(threads.submit(piece, name, shape, first, min(PIECE, total - first)))
        for job in jobs:
            job.result()
    os.close(fd)
    return len(tensors), sum(math.prod(shape) for _, shape in tensors), offset


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    begin = time.time()
    os.makedirs(os.path.dirname(os.path.abspath(args.file)), exist_ok=True)
    count, parameters, size = write(args.file, args.seed, TINY if args.tiny else Widths())
    print(f"{args.file}: {count} tensors, {parameters} numbers, {size / 1e9:.3f} GB after {time.time() - begin:.1f} s")
