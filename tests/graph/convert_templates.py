#!/usr/bin/env python3
"""Compares our conversion of the official templates with what the page makes of them. Run by hand.

    ninja convert_workflow
    convert_templates.py --tool build/release/distorch/graph/convert_workflow --object-info INFO.json
                         --templates FOLDER --expected PROMPTS [--page STATIC] [--shown 20]

FOLDER is `templates` of the PyPI package comfyui-workflow-templates-json, INFO.json an answer of GET
/object_info of a ComfyUI of that time, PROMPTS the folder that page_prompts.py filled. With --page it is
filled first, where it lacks a file. Ends with 1 if a template differs whose types are all known.
"""
import argparse
import collections
import json
import pathlib
import subprocess
import sys

# Drawn by the page while it converts: cameras and pictures of 3D views.
DRAWN = {"LOAD_3D", "WEBCAM"}


def same(ours, page):
    if isinstance(ours, bool) or isinstance(page, bool):
        return ours is page
    if isinstance(ours, (int, float)) and isinstance(page, (int, float)):
        return float(ours) == float(page)  # the page has doubles only
    if isinstance(ours, dict) and isinstance(page, dict):
        return ours.keys() == page.keys() and all(same(ours[k], page[k]) for k in ours)
    if isinstance(ours, list) and isinstance(page, list):
        return len(ours) == len(page) and all(map(same, ours, page))
    return ours == page


def drawn(definition, name):
    for section in ("required", "optional"):
        declared = definition["input"].get(section, {}).get(name)
        if declared and isinstance(declared[0], str) and declared[0] in DRAWN:
            return True
    return False


def differences(ours, page, definitions):
    """One line per node or input that differs. Of an unknown type the page keeps the links alone."""
    lines = []
    for node in sorted(set(ours) | set(page)):
        if node not in ours or node not in page:
            lines.append(f"node {node}: only {'page' if node in page else 'ours'}")
            continue
        kind = page[node]["class_type"]
        mine, theirs = ours[node]["inputs"], page[node]["inputs"]
        if kind is None:
            mine, theirs = ({k: v for k, v in inputs.items() if isinstance(v, list)} for inputs in (mine, theirs))
        elif kind != ours[node]["class_type"]:
            lines.append(f"node {node}: {ours[node]['class_type']}, page {kind}")
        for name in sorted(set(mine) | set(theirs)):
            if kind in definitions and drawn(definitions[kind], name):
                continue
            if name not in mine or name not in theirs or not same(mine[name], theirs[name]):
                lines.append(f"node {node} ({kind}) {name}: {json.dumps(mine.get(name, 'nothing'))[:90]}, "
                             f"page {json.dumps(theirs.get(name, 'nothing'))[:90]}")
    return lines


def types_of(workflow):
    graphs = [workflow] + workflow.get("definitions", {}).get("subgraphs", [])
    own = {graph.get("id") for graph in graphs} | {"Reroute", "PrimitiveNode", "Note", "MarkdownNote"}
    return {node["type"] for graph in graphs for node in graph["nodes"]} - own


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", type=pathlib.Path, required=True)
    parser.add_argument("--object-info", type=pathlib.Path, required=True)
    parser.add_argument("--templates", type=pathlib.Path, required=True)
    parser.add_argument("--expected", type=pathlib.Path, required=True)
    parser.add_argument("--page", type=pathlib.Path)
    parser.add_argument("--shown", type=int, default=20)
    arguments = parser.parse_args()
    definitions = json.loads(arguments.object_info.read_bytes())
    workflows = {f.name: json.loads(f.read_bytes()) for f in sorted(arguments.templates.glob("*.json"))}
    workflows = {name: w for name, w in workflows.items() if isinstance(w, dict) and isinstance(w.get("nodes"), list)}
    files = [arguments.templates / name for name in workflows]
    if arguments.page:
        command = [sys.executable, pathlib.Path(__file__).with_name("page_prompts.py"), "--page", arguments.page,
                   "--object-info", arguments.object_info, "--out", arguments.expected, *files]
        subprocess.run(command, check=True)
    made = subprocess.run([arguments.tool, arguments.object_info, "--keep-unknown", *files], check=True,
                          capture_output=True, text=True).stdout
    counts = collections.Counter()
    for line in filter(None, made.split("\n")):
        ours = json.loads(line)
        name = pathlib.Path(ours["file"]).name
        page = json.loads((arguments.expected / name).read_bytes())
        lacking = sorted(types_of(workflows[name]) - definitions.keys())
        if "error" in ours or "error" in page:
            result, lines = "not converted", [f"ours: {ours.get('error', 'fine')}", f"page: {page.get('error', 'fine')}"]
        else:
            lines = differences(ours["api"], page["api"], definitions)
            result = "equal" if not lines else "different"
        if lacking:
            result += ", types lacking"
        counts[result] += 1
        if lines:
            print(f"{name}: {result}{' (' + ', '.join(lacking) + ')' if lacking else ''}")
            for text in lines[:arguments.shown]:
                print("   ", text)
    print(f"{sum(counts.values())} templates: " + "; ".join(f"{n} {result}" for result, n in sorted(counts.items())))
    return 1 if counts["different"] or counts["not converted"] else 0


if __name__ == "__main__":
    sys.exit(main())
