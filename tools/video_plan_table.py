#!/usr/bin/env python3
"""What `distorch plan` says of Wan 2.2 14B, 1280x720, 81 frames, both experts, on two home machines of rigs/, as the table of
docs/wan_figures.md: video_plan_table.py BUILD_FOLDER [--write]. The model files are headers with holes, so that they take no room."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

root = pathlib.Path(__file__).resolve().parent.parent
CASE = root / "tests/workflows/cases/wan22_two_experts.json"
RIGS = {"rtx3090_cpu_x16_pcie4": "RTX 3090, 24 GB, 64 GB RAM, PCIe 4.0 x16", "rtx4070_12gb_32gb_ram": "RTX 4070, 12 GB, 32 GB RAM, NVMe disk"}
FORMS = {"fp8_scaled": "fp8 scaled", "fp16": "float16", "Q4_K": "GGUF Q4_K"}
BEGIN, END = "<!-- plans: tools/video_plan_table.py -->", "<!-- end of plans -->"
HEAD = """| files | machine | expert | rests on the card | streams a step | step s | x bound | peak GB | limit | all steps | planned in s (by the clock) |
|---|---|---|---|---|---|---|---|---|---|---|
"""


def workflow(form, folder):
    """The case at 1280x720 with its experts in another form, as a file."""
    graph = json.loads(CASE.read_text())
    graph["video"]["inputs"].update(width=1280, height=720, length=81)
    graph["picture"]["inputs"].update(width=1280, height=720)
    for name in ("high", "low"):
        inputs = graph[name]["inputs"]
        file = inputs["unet_name"].replace("fp8_scaled", form)
        if form.startswith("Q"):
            graph[name] = {"class_type": "UnetLoaderGGUF", "inputs": {"unet_name": file.replace(".safetensors", ".gguf")}}
        else:
            inputs["unet_name"] = file
    path = pathlib.Path(folder) / f"{form}.json"
    path.write_text(json.dumps(graph))
    return path


def limit_of(model):
    """What a step waits for most: the processor of the card, or a link."""
    lanes = [(lane["busy_s"], lane["lane"]) for lane in model["lanes"] if "->" in lane["lane"]]
    busy, lane = max(lanes, default=(0.0, ""))
    if busy <= model["compute_s"]:
        return f"computing ({100 * busy / model['compute_s']:.0f} % of it moving)" if lane else "computing"
    return f"{lane} ({busy:.1f} s a step)"


def rows(build, folder, form, rig):
    command = [build / "bin/distorch", "plan", workflow(form, folder), "--models", folder, "--rig", root / "rigs" / f"{rig}.yaml", "--json"]
    before, began = os.times(), time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True)
    after, took = os.times(), time.monotonic() - began
    worked = after.children_user + after.children_system - before.children_user - before.children_system
    took = f"{worked:.2f} ({took:.2f})"
    if result.returncode:
        yield f"| {FORMS[form]} | {RIGS[rig]} | | | | | | | {result.stderr.strip().splitlines()[-1][:200]} | | {took} |"
        return
    for model in json.loads(result.stdout):
        if "noise" not in model["model"]:
            continue
        on_card = sum(d["bytes"] for d in model["devices"] if d["device"] == model["compute"] and d["how"] == "resident")
        total = model["first_step_s"] + (model["steps"] / 2 - 1) * model["step_s"]
        yield (f"| {FORMS[form]} | {RIGS[rig]} | {'first' if 'high' in model['model'] else 'second'} "
               f"| {100 * on_card / model['bytes']:.0f} % of {model['bytes'] / 1e9:.1f} GB | {(model['bytes'] - on_card) / 1e9:.1f} GB "
               f"| {model['step_s']:.1f} | {model['step_s'] / model['bound_s']:.2f} | {(model['peak_bytes'] + model['others_bytes']) / 1e9:.1f} "
               f"| {limit_of(model)} | {total / 60:.0f} min | {took} |")


def main():
    build = (root / sys.argv[1]).resolve()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            subprocess.run([build / "bin/make_random_model", "--workflow", workflow(form, folder), "--models", folder, "--empty"], check=True,
                           stdout=subprocess.DEVNULL)
            for rig in RIGS:
                for line in rows(build, folder, form, rig):
                    lines.append(line)
                    print(line, flush=True)
    if "--write" in sys.argv:
        page = root / "docs/wan_figures.md"
        before, rest = page.read_text().split(BEGIN)
        page.write_text(before + BEGIN + "\n" + HEAD + "\n".join(lines) + "\n" + END + rest.split(END)[1])


main()
