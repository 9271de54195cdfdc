"""Picks what tests/sampling/wan_steps_test.cpp compares with from a record of the WanVideoWrapper's schedulers: noise levels and
timesteps of every scheduler, whole, sliced and from given levels, and the latent at three steps of runs with a closed-form model.

    python tests/parity/make_wan_wrapper_steps.py RECORD

RECORD: JSON with `cases`, `partial`, `custom_sigmas` and `trajectories`, written by running the pack's own scheduler classes
(October 2025) in float32. The model's output is v(x, t) = 0.6 x - 0.3 cos(2 x) + 0.0004 t - 0.1.
"""
import json
import pathlib
import sys


def kept(rows):
    return [row for row in rows if row["scheduler"] != "multitalk"]


def picked(row):
    if "error" in row:
        return {key: row[key] for key in ("scheduler", "steps", "error")}
    states = row["x_after_each_step"]
    at = sorted({0, len(states) // 2, len(states) - 1})
    short = {key: row[key] for key in ("scheduler", "steps", "shift", "start_step", "end_step", "seed", "x_initial")}
    return short | {"states": {str(i): states[i] for i in at}}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        record = json.load(file)
    table = {
        "shift": record["shift"],
        "cases": kept(record["cases"]),
        "partial": record["partial"],
        "custom_sigmas": kept(record["custom_sigmas"]),
        "trajectories": [picked(row) for row in kept(record["trajectories"])],
    }
    for row in table["cases"]:
        row.pop("timestep_dtype", None)
    path = pathlib.Path(__file__).with_name("wan_wrapper_steps.json")
    path.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
