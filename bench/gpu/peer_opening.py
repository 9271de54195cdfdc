"""From a file in the page cache to the first step done in Python: safetensors, `.to("cuda")`, one step. The device is up and its
libraries have run before the clock starts. peer_opening.py FILE --out FOLDER [--ours opening.json] [--tiny] [--device cuda]"""
import argparse
import json
import os
import time

import torch
from safetensors.torch import load_file

import flux_like


def main(args):
    device = torch.device(args.device)
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    sizes = flux_like.TINY_SIZES if args.tiny else flux_like.SIZES
    width, doubles, singles = (256, 2, 3) if args.tiny else (3072, 19, 38)
    given = flux_like.make_inputs(width, *sizes["512"], device)
    warm = flux_like.empty_model(width, 1, 1).to_empty(device=device)
    for parameter in warm.parameters():
        parameter.normal_(0, 0.02)
    for _ in range(3):
        warm(*given)
    synchronize()
    del warm
    if device.type == "cuda":
        torch.cuda.empty_cache()
    results, ours = [], {}
    if args.ours and os.path.exists(args.ours):
        ours = {entry["name"]: entry["ours"] for entry in json.load(open(args.ours))}
    for name, at_once in (("safetensors, then .to(device)", False), ("safetensors onto the device", True)):
        start = time.time()
        model = flux_like.empty_model(width, doubles, singles)
        model.load_state_dict(load_file(args.file, device=str(device) if at_once else "cpu"), assign=True)
        model.requires_grad_(False).to(device)
        synchronize()
        loaded = time.time()
        model(*given)
        synchronize()
        total = time.time() - start
        mine = ours.get("open: file to first step done / link")
        gb = os.path.getsize(args.file) / 1e9
        results.append({"name": f"open to first step, {name}", "ours": mine, "peer": total, "unit": "s",
                        "ratio": mine / total if mine else None, "GBps": gb / total, "load_s": loaded - start})
        print(f"{results[-1]['name']:<56} {mine or 0:8.3f} {total:8.3f} s, {gb / total:.1f} GB/s", flush=True)
        del model
        if device.type == "cuda":
            torch.cuda.empty_cache()
    with open(os.path.join(args.out, "peer_opening.json"), "w") as file:
        json.dump(results, file, indent=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--out", default=".")
    parser.add_argument("--ours")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    with torch.inference_mode():
        main(parser.parse_args())
