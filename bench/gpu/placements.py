"""Runs one workflow in every allocation mode and compares latents and pictures: between placements they must be equal to the last bit,
to the CPU's (float32) within a tolerance.
  placements.py --label demo --distorch BINARY --models FOLDER --checkpoint NAME --out FOLDER [--set NODE.INPUT=VALUE ...] [--device cuda:0]
The workflow (default: the demo's) is one in ComfyUI's UI format with a DisTorch2 checkpoint loader. Sizes in the allocations follow the
checkpoint's UNet. Writes placements_LABEL.json (a list of {name, ours, peer, unit, ratio}) and LABEL.png. Exits with 1 where a promise
is broken; a mode that fails, or that offloads nothing although it should, is a broken promise."""
import argparse
import glob
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

PIXELS = 2     # of 255, at any pixel; float32 on both sides
LATENT = 1e-3  # largest difference over largest value
LATENT_TF32 = 2e-3  # where convolutions round their inputs to ten bits
FLAT = 5       # of 255: pictures whose pixels spread less show nothing
EXACT = "resident, without TF32"  # torch lets cuDNN round convolutions' inputs to TF32; this run does not
RESIDENT = "resident"


@dataclass
class Outcome:
    failure: str = ""
    latent: np.ndarray = None
    pixels: np.ndarray = None
    picture: str = ""
    placed: dict = field(default_factory=dict)  # the UNet's bytes by device, as shares of 1


def safetensors(path):
    """{name: array} of a small file of float32."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: np.frombuffer(data[e["data_offsets"][0]:e["data_offsets"][1]], np.float32).reshape(e["shape"])
            for name, e in header.items()}


def unet_bytes(path):
    """In float32, as weights rest on the device under --force-fp32."""
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return sum(4 * math.prod(e["shape"]) for name, e in header.items() if name.startswith("model.diffusion_model."))


def with_latent(workflow):
    """The workflow with a SaveLatent beside its VAEDecode."""
    node, link = workflow["last_node_id"] + 1, workflow["last_link_id"] + 1
    decode = next(n for n in workflow["nodes"] if n["type"] == "VAEDecode")
    samples = next(i["link"] for i in decode["inputs"] if i["name"] == "samples")
    _, source, slot, *_ = next(l for l in workflow["links"] if l[0] == samples)
    next(n for n in workflow["nodes"] if n["id"] == source)["outputs"][slot]["links"].append(link)
    workflow["links"].append([link, source, slot, node, 0, "LATENT"])
    workflow["nodes"].append({"id": node, "type": "SaveLatent", "pos": [1220, 300], "size": [210, 60], "flags": {}, "order": node,
                              "mode": 0, "inputs": [{"name": "samples", "type": "LATENT", "link": link}], "outputs": [],
                              "properties": {}, "widgets_values": ["latents/latent"]})
    workflow["last_node_id"], workflow["last_link_id"] = node, link
    return workflow


def in_loader(loader, expert="", virtual=0):
    """Options that put an allocation into the loader's own fields; without one the model is placed freely."""
    return ["--set", f"{loader}.expert_mode_allocations={expert}", "--set", f"{loader}.virtual_vram_gb={virtual}",
            "--set", f"{loader}.donor_device=cpu"]


def modes(d, loader, bytes_, device_bytes, budget_mib, second):
    """{mode: (options, whether a part must rest elsewhere; None: either way)}. An allocation under --placement is for every model.
    `second`: another accelerator, "" where there is none."""
    part = int(0.4 * bytes_)
    gib = part / 2**30
    free = in_loader(loader)
    donors = {
        "ratio, another accelerator": (["--placement", f"{d},30%;{second},70%"], True),
        "ratio, another accelerator and RAM": (["--placement", f"{d},20%;{second},40%;cpu,40%"], True),
        "virtual VRAM, another accelerator": (["--placement", f"#{d};{gib:.6f};{second}"], True),
    }
    return (donors if second else {}) | {
        RESIDENT: (["--placement", f"{d},100%"], False),
        EXACT: (["--placement", f"{d},100%"], False),
        "auto": (free, False),
        "budget": (free + ["--memory", f"{d}={budget_mib}MiB"], budget_mib * 2**20 < bytes_ or None),
        "as the workflow says": ([], None),
        "bytes": (["--placement", f"{d},{part}b;cpu,*"], True),
        "bytes, the compute device takes the rest": (["--placement", f"cpu,{part}b;{d},*"], True),
        "ratio": (["--placement", f"{d},30%;cpu,70%"], True),
        "ratio, disk too": (["--placement", f"{d},50%;cpu,25%;disk,25%"], True),
        "fraction": (["--placement", f"{d},{part / device_bytes:.12f};cpu,*"], True),
        "everything in RAM": (["--placement", "cpu,*"], True),
        "everything on disk": (["--placement", "disk,100%"], True),
        "virtual VRAM": (["--placement", f"#{d};{gib:.6f};cpu"], True),
        "virtual VRAM, all": (["--placement", f"#{d};{max(24, 2 * bytes_ / 2**30):.0f};cpu"], True),
        "expert side of a full string": (["--placement", f"{d},40%;cpu,60%#{d};4;cpu"], True),
        "loader: expert": (in_loader(loader, f"{d},{part}b;cpu,*"), True),
        "loader: virtual VRAM": (in_loader(loader, virtual=f"{max(0.1, gib):.1f}"), True),
        "tail order": (in_loader(loader, f"{d},40%;cpu,60%") + ["--placement", "tail"], True),
    }


def placed(log):
    """Shares by device of the model with the most layers, which is the UNet, from the tables that a run logs."""
    most, found = -1, {}
    for table in log.split("Layers by device")[1:]:
        rows = re.findall(r"^(\S+) +(\d+) +[\d.]+ +([\d.]+)%$", table.split("v2 Expert String")[0], re.MULTILINE)
        layers = sum(int(count) for _, count, _ in rows)
        if layers > most:
            most, found = layers, {device: float(percent) / 100 for device, _, percent in rows}
    return found


class Runs:
    def __init__(self, args):
        self.args = args
        self.environment = dict(os.environ)
        if args.library_path:
            self.environment["LD_LIBRARY_PATH"] = args.library_path

    def start(self, arguments, environment):
        return subprocess.run([self.args.distorch] + arguments, capture_output=True, text=True, timeout=self.args.limit,
                              env=dict(self.environment, **environment))

    def accelerators(self):
        """{name: bytes}."""
        if self.args.rig:  # `devices` knows no rigs
            unit = {"": 1, "M": 2**20, "G": 2**30}
            found = re.findall(r"name: *\"?[a-z]+:(\d)\"?.*?memory: *([\d.]+)([MG]?)", open(self.args.rig).read(), re.DOTALL)
            return {f"sim:{index}": float(size) * unit[letter] for index, size, letter in found}
        listed = json.loads(self.start(["devices", "--json"], {}).stdout)["devices"]
        return {d["name"]: d["total_bytes"] for d in listed if d["name"] != "cpu"}

    def run(self, name, options, threads, accelerator=True):
        args = self.args
        folder = os.path.join(args.out, args.label + "_" + re.sub(r"\W+", "_", name))
        shutil.rmtree(folder, ignore_errors=True)
        command = ["--log-level", "debug", "run", os.path.join(args.out, f"{args.label}_workflow.json"), "--models", args.models, "--output", folder,
                   "--force-fp32", "--set", f"{args.loader}.ckpt_name={args.checkpoint}"]
        for one in args.set:
            command += ["--set", one]
        if args.tokenizers:
            command += ["--tokenizers", args.tokenizers]
        if args.rig and accelerator:
            command += ["--rig", args.rig]
        environment = {"OMP_NUM_THREADS": str(threads)}  # several run at once
        if not accelerator:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if name == EXACT:
            environment["NVIDIA_TF32_OVERRIDE"] = "0"
        try:
            done = self.start(command + options, environment)
        except subprocess.TimeoutExpired:
            return Outcome(f"not done after {args.limit} s")
        pictures = glob.glob(os.path.join(folder, "*.png"))
        latents = glob.glob(os.path.join(folder, "latents", "*.latent"))
        if done.returncode != 0 or len(pictures) != 1 or len(latents) != 1:
            return Outcome(f"exit code {done.returncode}, {len(pictures)} pictures: {done.stderr.strip()[-600:]}")
        outcome = Outcome(latent=safetensors(latents[0])["latent_tensor"], picture=pictures[0], placed=placed(done.stderr),
                          pixels=np.asarray(Image.open(pictures[0]).convert("RGB")).astype(np.int32))
        if not np.isfinite(outcome.latent).all():
            outcome.failure = "the latent holds NaN or infinity"
        elif outcome.pixels.std() < FLAT:
            outcome.failure = f"the picture is flat (spread {outcome.pixels.std():.2f} of 255)"
        elif not outcome.placed:
            outcome.failure = "the run logged no placement"
        return outcome


def problem_of(outcome, first, device, must_offload):
    """What is wrong with a run on the accelerator, "" if nothing is."""
    if outcome.failure:
        return outcome.failure
    elsewhere = 1 - outcome.placed.get(device, 0)
    if must_offload and elsewhere < 0.1:
        return f"should have offloaded a part, the UNet rests like this: {outcome.placed}"
    if must_offload is False and elsewhere > 0.01:
        return f"should have kept all on {device}, the UNet rests like this: {outcome.placed}"
    if first.failure:
        return "there is no resident run to compare with"
    if not np.array_equal(outcome.latent, first.latent):
        return f"NOT BIT-IDENTICAL: the latent differs by up to {np.abs(outcome.latent - first.latent).max():.3g}"
    if not np.array_equal(outcome.pixels, first.pixels):
        return f"NOT BIT-IDENTICAL: pixels differ by up to {np.abs(outcome.pixels - first.pixels).max()}"
    return ""


def against_cpu(label, name, outcome, reference):
    pixels = int(np.abs(outcome.pixels - reference.pixels).max())
    limit = LATENT if name == EXACT else LATENT_TF32
    latent = float(np.abs(outcome.latent - reference.latent).max() / np.abs(reference.latent).max())
    return [{"name": f"{label}: largest pixel difference to the CPU's, {name}", "ours": pixels, "peer": PIXELS, "unit": "/255",
             "ratio": pixels / PIXELS, "mean": float(np.abs(outcome.pixels - reference.pixels).mean())},
            {"name": f"{label}: latent's difference to the CPU's, {name}", "ours": latent, "peer": limit, "unit": "",
             "ratio": latent / limit}]


def main(args):
    workflow = with_latent(json.load(open(args.workflow)))
    args.loader = next(n["id"] for n in workflow["nodes"] if n["type"].lower().endswith("distorch2multigpu"))
    os.makedirs(args.out, exist_ok=True)
    with open(os.path.join(args.out, f"{args.label}_workflow.json"), "w") as file:
        json.dump(workflow, file)
    runs = Runs(args)
    accelerators = runs.accelerators()
    second = next((name for name in accelerators if name != args.device), "")
    wanted = modes(args.device, args.loader, unet_bytes(os.path.join(args.models, "checkpoints", args.checkpoint)),
                   accelerators[args.device], args.budget_mib, second)
    there = ["--device", args.device] + ([] if second else ["--device-map", f"cuda:1={args.device}"])
    here = ["--device", "cpu", "--device-map", "cuda:0=cpu", "--device-map", "cuda:1=cpu"] + in_loader(args.loader)
    cores = os.cpu_count()
    with ThreadPoolExecutor(args.jobs + 1) as pool:
        cpu = pool.submit(runs.run, "cpu", here, max(1, cores - 2 * args.jobs), accelerator=False)
        jobs = {name: pool.submit(runs.run, name, there + options, min(2, cores)) for name, (options, _) in wanted.items()}
        outcomes = {name: job.result() for name, job in jobs.items()}
        reference = cpu.result()

    first, results, good = outcomes[RESIDENT], [], True
    exact = outcomes.pop(EXACT)
    for name, outcome in outcomes.items():
        problem = problem_of(outcome, first, args.device, wanted[name][1])
        good = good and not problem
        if problem:
            print(f"{args.label}, {name}: FAILED: {problem}", flush=True)
        results.append({"name": f"{args.label}: bits equal to the resident run, {name}", "ours": int(not problem), "peer": 1, "unit": "",
                        "ratio": int(not problem), "unet": outcome.placed})
    for name, outcome in (("cpu", reference), (EXACT, exact)):
        if outcome.failure:
            print(f"{args.label}, {name}: FAILED: {outcome.failure}", flush=True)
            good = False
    if not reference.failure and not exact.failure:
        promised = against_cpu(args.label, EXACT, exact, reference)
        good = good and all(entry["ratio"] <= 1 for entry in promised)
        results += promised
        if not all(entry["ratio"] <= 1 for entry in promised):
            print(f"{args.label}: FAILED: further from the CPU's result than promised", flush=True)
    if not reference.failure and not first.failure:
        results += against_cpu(args.label, RESIDENT, first, reference)
    if not first.failure:
        shutil.copy(first.picture, os.path.join(args.out, f"{args.label}.png"))
    for entry in results:
        rests = ", ".join(f"{device} {100 * share:.0f}%" for device, share in entry.get("unet", {}).items())
        print(f"{entry['name']:<80} {entry['ours']:<12.4g} {rests}", flush=True)
    with open(os.path.join(args.out, f"placements_{args.label}.json"), "w") as file:
        json.dump(results, file, indent=1)
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--label", required=True, help="begins the names of results and files")
    parser.add_argument("--distorch", required=True)
    parser.add_argument("--models", required=True, help="folder with checkpoints/")
    parser.add_argument("--checkpoint", required=True, help="file name below checkpoints/")
    parser.add_argument("--out", required=True)
    parser.add_argument("--workflow", default="assets/demo/workflow.json")
    parser.add_argument("--set", action="append", default=[], help="as of `distorch run`")
    parser.add_argument("--budget-mib", type=int, default=200, help="of the mode `budget`: weights, ring and activations")
    parser.add_argument("--tokenizers")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rig")
    parser.add_argument("--library-path", help="LD_LIBRARY_PATH of the binary")
    parser.add_argument("--jobs", type=int, default=4, help="runs on the accelerator at once; the CPU's run is one more")
    parser.add_argument("--limit", type=float, default=60, help="seconds of one run")
    sys.exit(main(parser.parse_args()))
