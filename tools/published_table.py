#!/usr/bin/env python3
"""Writes the table of published DisTorch2 figures against ours into README.md: published_table.py build/bench/published.json"""
import json
import pathlib
import re
import sys

donors = {"cpu_x8_pcie3": "RAM, x8 PCIe 3", "cpu_x16_pcie4": "RAM, x16 PCIe 4", "gpu_nvlink": "3090, NVLink",
          "gpu_x8_pcie3": "3090, x8 PCIe 3", "gpu_x4_pcie3": "1660 Ti, x4 PCIe 3"}
rows = {}
for entry in json.loads(pathlib.Path(sys.argv[1]).read_text()):
    match = re.fullmatch(r"(.+) ([\d.]+) GB (\w+)", entry["name"])
    if match and match[3] in donors:
        cell = f"{entry['peer']:.4g} / {entry['bound']:.4g} / **{entry['ours']:.4g}**"
        rows.setdefault((match[1], match[2]), {})[match[3]] = cell
lines = ["| model, GB on the donor | " + " | ".join(donors.values()) + " |", "|---" * (len(donors) + 1) + "|"]
for (model, size), cells in rows.items():
    lines.append(f"| {model}, {size} | " + " | ".join(cells.get(donor, "") for donor in donors) + " |")
lines.append("\nSeconds a step: published / bound / **distorch, simulated**. Bound = max(resident step, bytes / link).")
readme = pathlib.Path(__file__).parent.parent / "README.md"
table = "\n".join(["<!-- published:begin -->", *lines, "<!-- published:end -->"])
readme.write_text(re.sub(r"<!-- published:begin -->.*?<!-- published:end -->", lambda _: table, readme.read_text(), flags=re.S))
