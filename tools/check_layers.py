#!/usr/bin/env python3
"""Fails where a folder of distorch/ includes one that docs/layers.txt does not put in a row above it, and where files of a
folder that promises one direction (NO_CIRCLES) include each other in a circle. x.h and x.cpp count as one file. Fails too
where at::parallel_for is called outside device/parallel.cpp: compiled without OpenMP it uses one thread."""
import pathlib
import re
import sys

NO_CIRCLES = {"base", "media", "placement"}

root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
row = {}
for number, line in enumerate((root / "docs/layers.txt").read_text().splitlines()):
    row.update({folder: number for folder in line.split()})
faults = []
uses = {}  # file without its ending -> files of the same folder that it includes
for file in sorted((root / "distorch").rglob("*")):
    if file.suffix not in {".h", ".cpp"}:
        continue
    name = file.relative_to(root / "distorch").with_suffix("").as_posix()
    folder = name.split("/")[0]
    if folder not in row:
        faults.append(f"{file.relative_to(root)}: folder '{folder}' is not in docs/layers.txt")
        continue
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if "at::parallel_for(" in line and name != "device/parallel":
            faults.append(f"{file.relative_to(root)}:{number}: at::parallel_for has one thread here; take device::parallel_for")
        included = re.match(r'\s*#\s*include\s*"distorch/(([^/"]+)/[^"]+)\.h"', line)
        if not included:
            continue
        if included[2] == folder:
            uses.setdefault(name, set()).update({included[1]} - {name})
        elif row.get(included[2], len(row)) >= row[folder]:
            faults.append(f"{file.relative_to(root)}:{number}: {folder} may not include {included[2]}")


def walk(name, path, done):
    if name in path:
        faults.append("a circle: " + " -> ".join([*path[path.index(name):], name]))
    elif name not in done:
        for other in sorted(uses.get(name, ())):
            walk(other, [*path, name], done)
        done.add(name)


done = set()
for name in sorted(uses):
    if name.split("/")[0] in NO_CIRCLES:
        walk(name, [], done)
print("\n".join(faults) or f"include order holds for {len(row)} folders, no circle in {', '.join(sorted(NO_CIRCLES))}")
sys.exit(bool(faults))
