#!/usr/bin/env python3
"""Fails where a folder of distorch/ includes one that docs/layers.txt does not put in a row above it."""
import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
row = {}
for number, line in enumerate((root / "docs/layers.txt").read_text().splitlines()):
    row.update({folder: number for folder in line.split()})
faults = []
for file in sorted((root / "distorch").rglob("*")):
    if file.suffix not in {".h", ".cpp"}:
        continue
    folder = file.relative_to(root / "distorch").parts[0]
    if folder not in row:
        faults.append(f"{file.relative_to(root)}: folder '{folder}' is not in docs/layers.txt")
        continue
    for number, line in enumerate(file.read_text().splitlines(), 1):
        included = re.match(r'\s*#\s*include\s*"distorch/([^/"]+)/', line)
        if included and included[1] != folder and row.get(included[1], len(row)) >= row[folder]:
            faults.append(f"{file.relative_to(root)}:{number}: {folder} may not include {included[1]}")
print("\n".join(faults) or f"include order holds for {len(row)} folders")
sys.exit(bool(faults))
