#!/usr/bin/env python3
"""Writes the checkpoint file, whole or in parts that fit small transfers, and joins parts again."""

import argparse
import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

NAME = "distorch-emoji-v1.safetensors"
PART = 15_000_000  # bytes; below every limit that the parts have to pass


def write(model, folder, metadata):
    """Saves fp16 weights under the all-in-one names; returns the path and its SHA-256."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state(torch.float16)
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise ValueError(f"not finite in fp16: {broken}")
    path = folder / NAME
    fresh = path.with_suffix(".tmp")
    save_file(state, fresh, metadata={key: str(value) for key, value in metadata.items()})
    fresh.chmod(0o644)
    fresh.replace(path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def split(path, folder):
    """Copies the file to `folder` as NAME.part0, NAME.part1, ..."""
    data, names = Path(path).read_bytes(), []
    for index, start in enumerate(range(0, len(data), PART)):
        part = Path(folder) / f"{Path(path).name}.part{index}"
        part.write_bytes(data[start:start + PART])
        names.append(part.name)
    return names


def join(folder, target):
    """Puts the parts in `folder` together; returns the path."""
    parts = sorted(Path(folder).glob(NAME + ".part*"))
    if not parts:
        raise FileNotFoundError(f"no {NAME}.part* in {folder}")
    path = Path(target) / NAME if Path(target).is_dir() else Path(target)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="where the .partN files lie")
    parser.add_argument("target", help="folder or file to write")
    options = parser.parse_args()
    joined = join(options.folder, options.target)
    print(joined, joined.stat().st_size, hashlib.sha256(joined.read_bytes()).hexdigest())
