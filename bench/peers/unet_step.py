"""One step of an SD 1.5-size UNet in diffusers (float32 and bfloat16) between steps of ours: same machine, same minutes,
same threads, same input sizes, random weights everywhere.

    python bench/peers/unet_step.py --ours build/release/bin/bench_unet_step --out build/bench [--rounds 3]

Adds the comparison to FOLDER/unet_step.json (made by bench_unet_step, which is asked for our steps: --serve).
"""
import argparse
import json
import os
import statistics
import subprocess
import time

import torch
from diffusers import UNet2DConditionModel

BATCH, CELLS, TOKENS, WIDTH = 2, 64, 77, 768


def make_unet(dtype):
    """SD 1.5 is what UNet2DConditionModel is by default, but for the text width. Weights as in bench/unet_file.h."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=CELLS, cross_attention_dim=WIDTH)
    unet = unet.to(dtype).to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.02)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return unet


class Peer:
    def __init__(self, dtype):
        self.unet = make_unet(dtype)
        self.inputs = (torch.randn(BATCH, 4, CELLS, CELLS, dtype=dtype), torch.full((BATCH,), 500.0),
                       torch.randn(BATCH, TOKENS, WIDTH, dtype=dtype))

    def step(self):
        start = time.perf_counter()
        with torch.inference_mode():
            self.unet(*self.inputs)
        return time.perf_counter() - start


class Ours:
    def __init__(self, program, out):
        self.process = subprocess.Popen([program, "--serve", "--out", out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit("bench_unet_step did not start")

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def row(name, ours, peer, allowed):
    ratios = [a / b for a, b in zip(ours, peer)]
    result = {"name": name, "ours": statistics.median(ours), "peer": statistics.median(peer), "unit": "s/step",
              "ratio": statistics.median(ratios), "times_faster": 1 / statistics.median(ratios), "wanted_times_faster": allowed,
              "turns": {"ours": ours, "peer": peer}, "load": os.getloadavg()[0], "threads": torch.get_num_threads()}
    print(f"{name:<66}{result['ours']:>10.3f}{result['peer']:>11.3f}{result['ratio']:>9.4f}  s/step "
          f"({result['times_faster']:.2f} x faster, wanted {allowed})", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    runners = {"ours": Ours(options.ours, options.out), "float32": Peer(torch.float32), "bfloat16": Peer(torch.bfloat16)}
    seconds = {name: [] for name in runners}
    for turn in range(-1, options.rounds):  # the first turn warms up
        for name, runner in runners.items():
            taken = runner.step()
            if turn >= 0:
                seconds[name].append(taken)
    runners["ours"].close()

    path = os.path.join(options.out, "unet_step.json")
    rows = json.load(open(path)) if os.path.exists(path) else []
    rows = [r for r in rows if "diffusers" not in r["name"]]
    rows.append(row("SD 1.5 UNet step, CPU: ours in bf16 beside diffusers float32", seconds["ours"], seconds["float32"], 1.8))
    rows.append(row("SD 1.5 UNet step, CPU: ours in bf16 beside diffusers bfloat16", seconds["ours"], seconds["bfloat16"], 1.0))
    with open(path, "w") as file:
        json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
