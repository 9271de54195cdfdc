"""Writes random weights of FLUX's shape as safetensors: make_weights.py FILE [--tiny]. Numbers are made on the GPU where there
is one and written by several threads."""
import json
import os
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch

import flux_like


def main(path, tiny):
    start = time.time()
    shape = (256, 2, 3) if tiny else (3072, 19, 38)
    parameters = {name: p.shape for name, p in flux_like.empty_model(*shape).named_parameters()}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, size in parameters.items():  # in the order of execution
        bytes_ = 2 * size.numel()
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [offset, offset + bytes_]}
        offset += bytes_
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(1)
    fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
    os.pwrite(fd, struct.pack("<Q", len(text)) + text, 0)

    def write(values, at):
        view, done = memoryview(values.view(torch.uint8).view(-1).numpy()), 0
        while done < len(view):
            done += os.pwrite(fd, view[done:done + (64 << 20)], at + done)

    with ThreadPoolExecutor(12) as pool:
        jobs = []
        for name, size in parameters.items():
            values = torch.randn(size, generator=generator, device=device, dtype=torch.float32).mul_(0.02).to(torch.bfloat16).cpu()
            jobs.append(pool.submit(write, values, 8 + len(text) + header[name]["data_offsets"][0]))
            while len(jobs) > 24:
                jobs.pop(0).result()
        for job in jobs:
            job.result()
    os.close(fd)
    print(f"{path}: {offset / 1e9:.2f} GB in {time.time() - start:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1], "--tiny" in sys.argv)
