"""Diffusers' UNet of Stable Diffusion 1.5 with random weights: writes weights, inputs and results for bench_gpu_sd15 and times
a step of batch 2. peer_sd15.py FOLDER [--tiny] [--device cuda] [--compile SECONDS]
With --compile only torch.compile is timed, on the weights that are there, and added to peer.json."""
import argparse
import json
import os
import statistics
import time

import torch
from safetensors.torch import load_file, save_file

CONFIG = dict(sample_size=64, in_channels=4, out_channels=4, layers_per_block=2, block_out_channels=(320, 640, 1280, 1280),
              down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
              up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, cross_attention_dim=768, attention_head_dim=8)
TINY = dict(CONFIG, block_out_channels=(32, 64, 64, 64))


def time_step(step, device, warm_ups=4, rounds=5, calls=8):
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(warm_ups):
        step()
    synchronize()
    seconds = []
    for _ in range(rounds):
        start = time.time()
        for _ in range(calls):
            step()
        synchronize()
        seconds.append((time.time() - start) / calls)
    return statistics.median(seconds)


def main(args):
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    device = torch.device(args.device)
    half = torch.float16 if device.type == "cuda" else torch.float32
    os.makedirs(args.folder, exist_ok=True)
    weights, facts_path = os.path.join(args.folder, "unet.safetensors"), os.path.join(args.folder, "peer.json")
    torch.manual_seed(5)
    sizes = {"512": 8, "1024": 16} if args.tiny else {"512": 64, "1024": 128}
    with torch.device(device):
        unet = UNet2DConditionModel(**(TINY if args.tiny else CONFIG)).to(half).eval().requires_grad_(False)
    if args.compile:
        unet.load_state_dict(load_file(weights, device=str(device)))
        facts = json.load(open(facts_path))
        facts["compiled"], facts["compile_s"] = {}, {}
        compiled = torch.compile(unet)
        begin = time.time()
        for name in sizes:
            case = load_file(os.path.join(args.folder, f"case_{name}.safetensors"), device=str(device))
            start = time.time()
            if start - begin > args.compile:
                break
            step = lambda: compiled(case["x"], case["timestep"], case["context"])
            step()
            facts["compile_s"][name] = time.time() - start
            facts["compiled"][name] = time_step(step, device)
            print(f"torch.compile {name}: {facts['compiled'][name]:.4f} s after {facts['compile_s'][name]:.0f} s", flush=True)
            json.dump(facts, open(facts_path, "w"), indent=1)
        return
    save_file({k: v.contiguous().cpu() for k, v in unet.state_dict().items()}, weights)
    facts = {"sizes": list(sizes), "eager": {}, "dtype": str(half)}
    for name, side in sizes.items():
        x = torch.randn(2, 4, side, side).to(half)
        context = torch.randn(2, 77, 768).to(half)
        timestep = torch.tensor([601.0, 601.0])
        given = [t.to(device) for t in (x, timestep, context)]
        out = unet(*given).sample
        facts["eager"][name] = time_step(lambda: unet(*given), device)
        save_file({"x": x, "timestep": timestep, "context": context, "out": out.float().cpu().contiguous()},
                  os.path.join(args.folder, f"case_{name}.safetensors"))
        print(f"diffusers eager {name}: {facts['eager'][name]:.4f} s", flush=True)
    json.dump(facts, open(facts_path, "w"), indent=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--compile", type=float, default=0)
    with torch.no_grad():
        main(parser.parse_args())
