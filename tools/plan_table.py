#!/usr/bin/env python3
"""What `distorch plan` says of full-size workflows on the machines of rigs/, as the table of docs/plans.md:
plan_table.py BUILD_FOLDER [--write]. The model files are made with holes in place of numbers, so that they take no room."""
import json
import pathlib
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).resolve().parent.parent
WORKFLOWS = ["sdxl", "flux_dev", "sd35_large", "qwen_image", "z_image"]
RIGS = ["rtx4070_12gb_32gb_ram", "rtx3090_cpu_x8_pcie3", "rtx3090_cpu_x16_pcie4", "2x3090_1660ti", "h100_pcie5", "h200"]
HEAD = """# Plans

What `distorch plan` predicts for whole workflows (tests/workflows/cases) with models at full size on the machines of `rigs/`. No weight is read:
the files are headers with holes (`make_random_model --empty`). `tools/plan_table.py build/release --write` makes this page again.

Of the diffusion model: seconds of a step and over its bound (the larger of computing with all weights in place and moving what does not
fit), the share of its weights that rests on the device that computes, and the peak there.

| workflow | machine | step s | x bound | resident | peak GB |
|---|---|---|---|---|---|
"""


def row(build, folder, workflow, rig):
    path = root / "tests/workflows/cases" / f"{workflow}.json"
    result = subprocess.run([build / "bin/distorch", "plan", path, "--models", folder, "--rig", root / "rigs" / f"{rig}.yaml", "--json"],
                            capture_output=True, text=True)
    if result.returncode:
        return f"| {workflow} | {rig} | {result.stderr.strip().splitlines()[-1][:150]} | | | |"
    models = [model for model in json.loads(result.stdout) if "step_s" in model]
    model = max(models, key=lambda m: m["step_s"] * m.get("steps", 1))
    resident = sum(d["bytes"] for d in model["devices"] if d["device"] == model["compute"] and d["how"] == "resident")
    return (f"| {workflow} | {rig} | {model['step_s']:.3f} | {model['step_s'] / model['bound_s']:.2f} "
            f"| {100 * resident / model['bytes']:.0f} % of {model['bytes'] / 1e9:.1f} GB | {model['peak_bytes'] / 1e9:.1f} |")


def main():
    build = (root / sys.argv[1]).resolve()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for workflow in WORKFLOWS:
            subprocess.run([build / "bin/make_random_model", "--workflow", root / "tests/workflows/cases" / f"{workflow}.json",
                            "--models", folder, "--empty"], check=True, stdout=subprocess.DEVNULL)
            for rig in RIGS:
                lines.append(row(build, folder, workflow, rig))
                print(lines[-1], flush=True)
    if "--write" in sys.argv:
        (root / "docs/plans.md").write_text(HEAD + "\n".join(lines) + "\n")


main()
