#!/usr/bin/env python3
"""Published DisTorch2 rows of packed models, predicted with a model of that very format: published_plans.py BIN [--rows N]
BIN is the folder of distorch and make_random_model. For every model a file of its names, shapes and packing without numbers is made and planned by
`distorch plan` on the rig of the row's donor, with so many bytes on that donor. Prints the table of docs/benchmarks.md, where a cell is published /
bound / predicted and the bound the larger of the model's own resident step and bytes over the link; exits with 1 where a step is above 1.03 x its
bound. --rows: only the last N of each model and donor."""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
ALLOWED = 1.03
GB, GIB = 1e9, 2**30
MODELS = {
    "flux1-dev-Q8_0": {"unet": ("flux-dev", "unet/model.gguf", ["--dtype", "Q8_0"]), "loader": "UnetLoaderGGUFDisTorch2MultiGPU", "clips": ["clip-l", "t5xxl"],
                       "type": "flux", "vae": "flux-vae", "size": 1024, "cfg": 1.0},
    "qwen_image_fp8_e4m3fn": {"unet": ("qwen-image", "diffusion_models/model.safetensors", ["--dtype", "F8_E4M3"]), "loader": "UNETLoaderDisTorch2MultiGPU",
                              "clips": ["qwen2.5-vl-7b"], "type": "qwen_image", "vae": "qwen-vae", "size": 1328, "cfg": 2.5},
}


def workflow(model, allocation):
    kind, path, _ = model["unet"]
    unet = {"unet_name": pathlib.Path(path).name, "compute_device": "cuda:0", "virtual_vram_gb": 0.0, "donor_device": "cpu", "expert_mode_allocations": allocation,
            "eject_models": True}
    if not path.endswith(".gguf"):
        unet["weight_dtype"] = "default"
    clip = {f"clip_name{i + 1}" if len(model["clips"]) > 1 else "clip_name": name + ".safetensors" for i, name in enumerate(model["clips"])}
    nodes = {"unet": (model["loader"], unet),
             "clip": ("DualCLIPLoaderMultiGPU" if len(clip) > 1 else "CLIPLoaderMultiGPU", {**clip, "type": model["type"], "device": "cpu"}),
             "text": ("CLIPTextEncode", {"text": "a lighthouse on a cliff above a stormy sea", "clip": ["clip", 0]}),
             "latent": ("EmptySD3LatentImage", {"width": model["size"], "height": model["size"], "batch_size": 1}),
             "sample": ("KSampler", {"model": ["unet", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0], "seed": 1, "steps": 20,
                                     "cfg": model["cfg"], "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}),
             "vae": ("VAELoaderMultiGPU", {"vae_name": model["vae"] + ".safetensors", "device": "cpu"}),
             "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["vae", 0]}),
             "save": ("SaveImage", {"filename_prefix": "x", "images": ["decode", 0]})}
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def make(bin_folder, models, model):
    def write(kind, path, more=()):
        path = models / path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            subprocess.run([bin_folder / "make_random_model", kind, path, "--empty", *more], check=True, stdout=subprocess.DEVNULL)
    write(*model["unet"])
    for kind in model["clips"]:
        write(kind, f"text_encoders/{kind}.safetensors")
    write(model["vae"], f"vae/{model['vae']}.safetensors")


def predicted(bin_folder, models, model, donor, gigabytes):
    """Seconds of a step, seconds of its computing, bytes of the model."""
    allocation = f"{donor['device']},{gigabytes * GB / GIB:.4f}gb;cuda:0,*"
    prompt = models / "prompt.json"
    prompt.write_text(json.dumps(workflow(model, allocation)))
    result = subprocess.run([bin_folder / "distorch", "plan", prompt, "--models", models, "--json", "--rig", ROOT / "rigs" / (donor["rig"] + ".yaml")],
                            stdout=subprocess.PIPE, check=True, text=True)
    run = next(entry for entry in json.loads(result.stdout) if entry["model"] == "model")
    return run["step_s"], run["compute_s"], run["bytes"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bin", type=pathlib.Path)
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    facts = json.loads((ROOT / "bench" / "data" / "published_distorch2.json").read_text())
    donors = {donor["name"]: donor for donor in facts["donors"]}
    resident = {model["name"]: model["resident_s"] for model in facts["models"]}
    worst = 0
    print("| model, GB on the donor | " + " | ".join(donors) + " |\n" + "|---" * (len(donors) + 1) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name, model in MODELS.items():
            models = pathlib.Path(folder) / name
            make(options.bin.resolve(), models, model)
            table, resident_step = {}, float("inf")
            for donor in donors.values():
                rows = [row for row in facts["runs"] if row["model"] == name and row["donor"] == donor["name"]]
                for row in rows[-(options.rows or len(rows)):]:
                    step, compute, size = predicted(options.bin.resolve(), models, model, donor, row["GB"])
                    bound = max(compute, row["GB"] / donor["GBps"])
                    worst, resident_step = max(worst, step / bound), min(resident_step, compute)
                    table.setdefault(row["GB"], {})[donor["name"]] = f"{row['seconds']} / {bound:.4g} / **{step:.4g}**"
            print(f"| {name} ({size / GB:.2f} GB), the resident step | {resident[name]} / / **{resident_step:.4g}** |" + " |" * (len(donors) - 1))
            for gigabytes, cells in sorted(table.items()):
                print(f"| {gigabytes} | " + " | ".join(cells.get(donor, "") for donor in donors) + " |", flush=True)
    print(f"\nworst: {worst:.4f} x the bound (allowed: {ALLOWED})")
    return worst > ALLOWED


if __name__ == "__main__":
    sys.exit(main())
