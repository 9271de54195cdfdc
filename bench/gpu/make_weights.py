"""Writes random weights of FLUX's shape as safetensors: make_weights.py FOLDER... [--tiny]. Numbers are made on the GPU where there
is one and written by several threads, into the first folder that has the room and whose files CUDA can register. The last line
printed is the path."""
import json
import mmap
import os
import shutil
import struct
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import torch

import flux_like


def registers(folder):
    """Whether a read-only mapping of a file there can be registered with CUDA."""
    if not torch.cuda.is_available():
        return True
    path = os.path.join(folder, "distorch_probe")
    with open(path, "wb") as file:
        file.write(bytes(1 << 24))
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
    os.unlink(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = torch.frombuffer(mapping, dtype=torch.uint8)
    torch.cuda.init()
    torch.zeros(1, device="cuda")
    read_only = 8
    error = int(torch.cuda.cudart().cudaHostRegister(tensor.data_ptr(), tensor.numel(), read_only))
    if error == 0:
        torch.cuda.cudart().cudaHostUnregister(tensor.data_ptr())
    print(f"{folder}: registering a mapping gives {error}")
    return error == 0


def choose(folders, bytes_):
    fitting = [f for f in folders if os.path.isdir(f) and shutil.disk_usage(f).free > 1.1 * bytes_]
    return next((f for f in fitting if registers(f)), fitting[0])


def main(folders, tiny):
    start = time.time()
    shape = (256, 2, 3) if tiny else (3072, 19, 38)
    parameters = {name: p.shape for name, p in flux_like.empty_model(*shape).named_parameters()}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, size in parameters.items():  # in the order of execution
        bytes_ = 2 * size.numel()
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [offset, offset + bytes_]}
        offset += bytes_
    path = os.path.join(choose(folders, offset), "distorch_weights.safetensors")
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
    print(f"{offset / 1e9:.2f} GB written after {time.time() - start:.1f} s")
    print(path)


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--tiny"], "--tiny" in sys.argv)
