"""Decoding clips with the autoencoder of Wan 2.1 in diffusers, whole and tiled (AutoencoderKLWan.enable_tiling), between clips of ours:
same machine, same minutes, same threads, same sizes, same type, random weights everywhere.

    python bench/peers/vae_decode.py --ours build/release/bin/bench_vae_decode --out build/bench [--frames 81,241] [--rounds 3]

Adds the comparison to FOLDER/vae_decode.json (made by bench_vae_decode, which is asked for our clips: --serve). The tiles are
half of the picture each way with a quarter of overlap, as the tiles of diffusers' defaults lie in 480p.
"""
import argparse
import json
import os
import statistics
import subprocess
import time

import torch
from diffusers import AutoencoderKLWan


class Peer:
    def __init__(self, options, dtype, tiled):
        self.dtype = dtype
        with torch.device("meta"):
            vae = AutoencoderKLWan(base_dim=options.channels)
        self.vae = vae.to(dtype).to_empty(device="cpu").eval()
        with torch.no_grad():
            for name, weight in self.vae.named_parameters():
                if weight.dim() > 1 and not name.endswith("gamma"):
                    weight.normal_(0, 0.02)
                else:
                    weight.fill_(0.0 if name.endswith("bias") else 1.0)
        self.size = (options.height, options.width)
        if tiled:
            self.vae.enable_tiling(options.height // 2 + options.height // 8, options.width // 2 + options.width // 8, options.height // 2,
                                   options.width // 2)

    def decode(self, frames):
        latent = torch.randn(1, 16, 1 + (frames - 1) // 4, self.size[0] // 8, self.size[1] // 8, dtype=self.dtype)
        start = time.perf_counter()
        with torch.inference_mode():
            decoded = self.vae.decode(latent).sample
        taken = time.perf_counter() - start
        assert decoded.shape[2:] == (frames, *self.size), decoded.shape
        return taken


class Ours:
    def __init__(self, options):
        sizes = [x for key in ("width", "height", "channels") for x in (f"--{key}", str(getattr(options, key)))]
        self.process = subprocess.Popen([options.ours, "--serve", "--out", options.out, *sizes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        words = self.process.stdout.readline().split()
        if words[:1] != ["ready"]:
            raise SystemExit("bench_vae_decode did not start")
        self.dtype = {"BFloat16": torch.bfloat16, "Half": torch.float16, "Float": torch.float32}[words[1]]

    def decode(self, frames):
        self.process.stdin.write(f"{frames}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def row(options, frames, way, dtype, ours, peer):
    ratio = statistics.median(a / b for a, b in zip(ours, peer))
    name = f"Wan 2.1 VAE, {options.width}x{options.height}, {frames} frames, CPU: ours beside diffusers {way}, {dtype}"
    result = {"name": name, "ours": statistics.median(ours) / frames, "peer": statistics.median(peer) / frames, "unit": "s/frame", "ratio": ratio,
              "turns": {"ours": ours, "peer": peer}, "load": os.getloadavg()[0], "threads": torch.get_num_threads()}
    print(f"{name:<66}{result['ours']:>10.4f}{result['peer']:>11.4f}{ratio:>9.4f}  s/frame", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--frames", default="81,241")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    path = os.path.join(options.out, "vae_decode.json")
    rows = json.load(open(path)) if os.path.exists(path) else []
    rows = [r for r in rows if "diffusers" not in r["name"]]
    ours = Ours(options)
    peers = {way: Peer(options, ours.dtype, way == "tiled") for way in ("whole", "tiled")}
    for runner in (ours, *peers.values()):
        runner.decode(5)  # warms up
    for frames in (int(n) for n in options.frames.split(",")):
        for way, peer in peers.items():
            turns = [(ours.decode(frames), peer.decode(frames)) for _ in range(options.rounds)]
            rows.append(row(options, frames, way, str(ours.dtype).removeprefix("torch."), *zip(*turns)))
    ours.close()
    with open(path, "w") as file:
        json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
