"""One step of a UNet of SD 1.5's or SDXL's size in diffusers (float32 and bfloat16) between steps of ours: same machine, same
minutes, same threads, same input sizes, random weights everywhere.

    python bench/peers/unet_step.py --ours build/release/bin/bench_unet_step --out build/bench [--model sdxl] [--rounds 3]

Adds the comparison to FOLDER/unet_step.json or unet_step_sdxl.json (made by bench_unet_step, which is asked for our steps:
--serve). SDXL's peers are measured one after the other: both beside ours would take 21 GB.
"""
import argparse
import json
import os
import statistics
import subprocess
import time

import torch
from diffusers import UNet2DConditionModel

BATCH, CELLS, TOKENS = 2, 64, 77
# SD 1.5 is what UNet2DConditionModel is by default, but for the text width.
CONFIGS = {
    "sd15": dict(cross_attention_dim=768),
    "sdxl": dict(cross_attention_dim=2048, block_out_channels=(320, 640, 1280), attention_head_dim=(5, 10, 20),
                 down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                 up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                 transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time",
                 addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816),
}
TITLES = {"sd15": "SD 1.5", "sdxl": "SDXL"}


def make_unet(model, dtype):
    """Weights as in bench/unet_file.h."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=CELLS, **CONFIGS[model])
    unet = unet.to(dtype).to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.02)
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return unet


class Peer:
    def __init__(self, model, dtype):
        self.unet = make_unet(model, dtype)
        self.inputs = (torch.randn(BATCH, 4, CELLS, CELLS, dtype=dtype), torch.full((BATCH,), 500.0),
                       torch.randn(BATCH, TOKENS, CONFIGS[model]["cross_attention_dim"], dtype=dtype))
        self.more = {}
        if model == "sdxl":
            sizes = torch.tensor([[512.0, 512, 0, 0, 512, 512]]).repeat(BATCH, 1).to(dtype)
            self.more = {"added_cond_kwargs": {"text_embeds": torch.randn(BATCH, 1280, dtype=dtype), "time_ids": sizes}}

    def step(self):
        start = time.perf_counter()
        with torch.inference_mode():
            self.unet(*self.inputs, **self.more)
        return time.perf_counter() - start


class Ours:
    def __init__(self, program, model, out):
        self.process = subprocess.Popen([program, "--serve", "--model", model, "--out", out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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


# The peer's type, and how many times faster ours is wanted.
PEERS = {"float32": (torch.float32, 1.8), "bfloat16": (torch.bfloat16, 1.0)}


def take_turns(options, names):
    """Seconds of steps of ours and of these peers, by turns."""
    ours = Ours(options.ours, options.model, options.out)
    runners = dict({"ours": ours}, **{name: Peer(options.model, PEERS[name][0]) for name in names})
    seconds = {name: [] for name in runners}
    for turn in range(-1, options.rounds):  # the first turn warms up
        for name, runner in runners.items():
            taken = runner.step()
            if turn >= 0:
                seconds[name].append(taken)
    ours.close()
    return seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", choices=CONFIGS, default="sd15")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    path = os.path.join(options.out, "unet_step.json" if options.model == "sd15" else f"unet_step_{options.model}.json")
    rows = json.load(open(path)) if os.path.exists(path) else []
    rows = [r for r in rows if "diffusers" not in r["name"]]
    at_once = [list(PEERS)] if options.model == "sd15" else [[name] for name in PEERS]
    for names in at_once:
        seconds = take_turns(options, names)
        for name in names:
            title = f"{TITLES[options.model]} UNet step, CPU: ours in bf16 beside diffusers {name}"
            rows.append(row(title, seconds["ours"], seconds[name], PEERS[name][1]))
    with open(path, "w") as file:
        json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
