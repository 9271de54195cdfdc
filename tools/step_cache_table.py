#!/usr/bin/env python3
"""What step caches save and change on a Wan 2.1 T2V 1.3B of random numbers, real widths and few blocks, as a table of
docs/wan_figures.md: step_cache_table.py BUILD_FOLDER [--write]. Saved are steps of the network; the change is the distance of the latent
at the end to that of the run without a cache, as a share of its length."""
import array
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
STEPS = 20
CACHES = {"EasyCache": (0.2, 0.5, 1.0, 2.0), "LazyCache": (0.1, 0.2, 0.5, 1.0)}
NETWORK, TEXT = "wan2.1_t2v_1.3B_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
BEGIN, END = "<!-- caches: tools/step_cache_table.py -->", "<!-- end of caches -->"
HEAD = """| cache | reuse_threshold | steps computed | steps told from earlier ones | distance to the full run |
|---|---|---|---|---|
"""


def workflow(cache, threshold):
    """Text to video, 256x160, 13 frames; the node of the cache between model and sampler, where there is one."""
    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    graph = {
        "net": node("UNETLoader", unet_name=NETWORK, weight_dtype="default"),
        "shift": node("ModelSamplingSD3", model=["net", 0], shift=8.0),
        "clip": node("CLIPLoader", clip_name=TEXT, type="wan"),
        "positive": node("CLIPTextEncode", clip=["clip", 0], text="a fox runs over snow"),
        "negative": node("CLIPTextEncode", clip=["clip", 0], text="blurred"),
        "video": node("EmptyHunyuanLatentVideo", width=256, height=160, length=13, batch_size=1),
        "sample": node("KSampler", model=["shift", 0], positive=["positive", 0], negative=["negative", 0], latent_image=["video", 0], seed=7,
                       steps=STEPS, cfg=6.0, sampler_name="uni_pc", scheduler="simple", denoise=1.0),
        "save": node("SaveLatent", samples=["sample", 0], filename_prefix="latent"),
    }
    if cache:
        graph["cache"] = node(cache, model=["shift", 0], reuse_threshold=threshold, start_percent=0.15, end_percent=0.95, verbose=False)
        graph["sample"]["inputs"]["model"] = ["cache", 0]
    return graph


def latent_of(folder):
    """The numbers of the one latent that was saved there."""
    data = next(pathlib.Path(folder).rglob("*.latent")).read_bytes()
    size = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8:8 + size])["latent_tensor"]["data_offsets"]
    return array.array("f", data[8 + size + begin:8 + size + end])


def run(build, folder, cache=None, threshold=0.0):
    """The latent, and how many of the steps were told from earlier ones."""
    out = pathlib.Path(folder) / f"{cache}-{round(100 * threshold)}"
    path = out.with_suffix(".json")
    path.write_text(json.dumps(workflow(cache, threshold)))
    result = subprocess.run([build / "bin/distorch", "run", path, "--models", folder, "--output", out, "--temp", out], capture_output=True, text=True)
    if result.returncode:
        sys.exit(result.stderr)
    told = re.search(r"(\d+) of \d+ steps were told", result.stdout + result.stderr)
    return latent_of(out), int(told[1]) if told else 0


def distance(latent, full):
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(latent, full)) / sum(b * b for b in full))


def main():
    build = (root / sys.argv[1]).resolve()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "workflow.json"
        path.write_text(json.dumps(workflow(None, 0)))
        subprocess.run([build / "bin/make_random_model", "--workflow", path, "--models", folder, "--size", "truncated"], check=True,
                       stdout=subprocess.DEVNULL)
        full, _ = run(build, folder)
        lines.append(f"| none | | {STEPS} | 0 | 0 |")
        for cache, thresholds in CACHES.items():
            for threshold in thresholds:
                latent, told = run(build, folder, cache, threshold)
                lines.append(f"| {cache} | {threshold} | {STEPS - told} | {told} | {distance(latent, full):.3g} |")
                print(lines[-1], flush=True)
    if "--write" in sys.argv:
        page = root / "docs/wan_figures.md"
        before, rest = page.read_text().split(BEGIN)
        page.write_text(before + BEGIN + "\n" + HEAD + "\n".join(lines) + "\n" + END + rest.split(END)[1])


main()
