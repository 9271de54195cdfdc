"""Runs the demo workflow in every allocation mode and compares the pictures: between placements they must be equal to the last bit,
to the CPU's within a tolerance. demo_placements.py --distorch BINARY --out FOLDER [--tokenizers DIR] [--device cuda:0] [--rig FILE]
Writes demo.json (a list of {name, ours, peer, unit, ratio}) and demo.png. Exits with 1 where a promise is broken."""
import argparse
import glob
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

TOLERANCE = 2  # of 255, at any pixel; float32 on both sides
EXACT = "resident, without TF32"  # torch lets cuDNN round convolutions' inputs to TF32; this run does not


def modes(device):
    return {
        "resident": ["--placement", f"{device},100%"],
        EXACT: ["--placement", f"{device},100%"],
        "auto": [],
        "bytes": ["--placement", f"{device},4mb;cpu,*"],
        "ratio": ["--placement", f"{device},30%;cpu,70%"],
        "fraction": ["--placement", f"{device},0.0001;cpu,*"],
        "virtual vram": ["--placement", f"#{device};0.01;cpu"],
        "virtual vram, all": ["--placement", f"#{device};24;cpu"],
        "budget": ["--memory", f"{device}=200mb"],
    }


def run(args, name, extra, accelerator=True):
    folder = os.path.join(args.out, "demo_" + "".join(c if c.isalnum() else "_" for c in name))
    shutil.rmtree(folder, ignore_errors=True)
    command = [args.distorch, "run", "assets/demo/workflow.json", "--models", "assets/demo/models", "--output", folder,
               "--force-fp32", "--quiet"]
    if args.tokenizers:
        command += ["--tokenizers", args.tokenizers]
    if args.rig and accelerator:
        command += ["--rig", args.rig]
    environment = dict(os.environ, OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "4"))  # several run at once
    if args.library_path:
        environment["LD_LIBRARY_PATH"] = args.library_path
    if not accelerator:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if name == EXACT:
        environment["NVIDIA_TF32_OVERRIDE"] = "0"
    try:
        done = subprocess.run(command + extra, capture_output=True, text=True, timeout=args.limit, env=environment)
    except subprocess.TimeoutExpired:
        print(f"{name}: FAILED: not done after {args.limit} s", flush=True)
        return None, folder
    pictures = sorted(glob.glob(os.path.join(folder, "*.png")))
    if done.returncode != 0 or not pictures:
        print(f"{name}: FAILED ({done.returncode}): {done.stderr.strip()[-600:]}", flush=True)
        return None, folder
    return np.asarray(Image.open(pictures[0]).convert("RGB")).astype(np.int32), pictures[0]


def main(args):
    cpu = ["--device", "cpu", "--device-map", "cuda:0=cpu", "--device-map", "cuda:1=cpu"]
    wanted = modes(args.device)
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {name: pool.submit(run, args, name, ["--device", args.device, "--device-map", f"cuda:1={args.device}"] + extra)
                for name, extra in wanted.items()}
        reference, _ = run(args, "cpu", cpu, accelerator=False)
        pictures = {name: job.result() for name, job in jobs.items()}
    results, good = [], reference is not None
    first, path = pictures["resident"]
    for name, (picture, _) in pictures.items():
        if name == EXACT:
            continue
        same = picture is not None and first is not None and np.array_equal(picture, first)
        results.append({"name": f"demo: pixels equal to the resident run, {name}", "ours": int(same), "peer": 1, "unit": "",
                        "ratio": int(same)})
        good = good and same
    for name, promised in ((EXACT, True), ("resident", False)):
        picture = pictures[name][0]
        if picture is None or reference is None:
            continue
        difference = int(np.abs(picture - reference).max())
        results.append({"name": f"demo: largest pixel difference to the CPU's picture, {name}", "ours": difference,
                        "peer": TOLERANCE, "unit": "/255", "ratio": difference / TOLERANCE,
                        "mean": float(np.abs(picture - reference).mean())})
        good = good and (difference <= TOLERANCE or not promised)
    if first is not None:
        shutil.copy(path, os.path.join(args.out, "demo.png"))
    for entry in results:
        print(f"{entry['name']:<64} {entry['ours']}", flush=True)
    with open(os.path.join(args.out, "demo.json"), "w") as file:
        json.dump(results, file, indent=1)
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--distorch", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokenizers")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rig")
    parser.add_argument("--library-path", help="LD_LIBRARY_PATH of the binary")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--limit", type=float, default=60)
    sys.exit(main(parser.parse_args()))
