"""docs/reference_nodes.md: the nodes of ComfyUI-MultiGPU and of its workflows, and which of them distorch has.

    python docs/scripts/reference_nodes.py                 says yes and no anew, from what distorch has now
    python docs/scripts/reference_nodes.py FACTS           makes the lists anew as well

FACTS is a folder with wrapper_object_info/*.json (what /object_info of the add-on's versions shows) and workflows/*.json. What
distorch has are the names in tests/nodes/object_info_*.json, which a test compares with its catalogue.
"""
import glob
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(HERE, "..", "reference_nodes.md")
OURS = os.path.join(HERE, "..", "..", "tests", "nodes", "object_info_*.json")
# Nodes of the page alone: they never reach a server.
PAGE_ONLY = ["Fast Groups Bypasser (rgthree)", "MarkdownNote", "Note", "PrimitiveNode", "Reroute"]
TEXT = """# The nodes of ComfyUI-MultiGPU

Which nodes distorch has of those that ComfyUI-MultiGPU brought in August 2025 and in its releases 2.5 to 2.6.3, and of those in the
workflows that it ships. Made by `docs/scripts/reference_nodes.py`; a test compares the answers with what distorch has. The base loaders
of variants are had where their variants are. Names with `Distorch2` in place of `DisTorch2` are accepted too.

"""


def load(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def names_in(path):
    return {name for name in load(path) if "MultiGPU" in name or name in ("UNetLoaderLP", "HunyuanVideoEmbeddingsAdapter")}


def nodes_of(workflow):
    found = list(workflow.get("nodes", []))
    for subgraph in workflow.get("definitions", {}).get("subgraphs", []):
        found += subgraph["nodes"]
    groups = {s["id"] for s in workflow.get("definitions", {}).get("subgraphs", [])}
    return {node["type"] for node in found if node["type"] not in groups}


def lists_of(facts):
    info = os.path.join(facts, "wrapper_object_info")
    august = names_in(os.path.join(info, "MultiGPU_2025-08.json")) | names_in(os.path.join(info, "wanvideo_2025_08.json"))
    later = names_in(os.path.join(info, "MultiGPU_2.5.11.json")) | names_in(os.path.join(info, "wanvideo.json"))
    own = [(name, "yes" if name in august else "no", "yes" if name in later else "no") for name in sorted(august | later, key=str.lower)]
    used = {}
    for path in sorted(glob.glob(os.path.join(facts, "workflows", "*.json"))):
        for name in nodes_of(load(path)):
            used.setdefault(name, []).append(path)
    return own, [(name, str(len(used[name]))) for name in sorted(used, key=str.lower)]


def committed_lists():
    """The two tables of the page, without its answers."""
    tables, rows = [], None
    with open(PAGE, encoding="utf-8") as f:
        for line in f:
            if line.startswith("|---"):
                rows = []
                tables.append(rows)
            elif line.startswith("| `") and rows is not None:
                cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
                rows.append((cells[0].strip("`"), *cells[1:-1]))
    return tables


def answer(name, ours):
    return "yes" if name in ours else "page only" if name in PAGE_ONLY else "no"


def table(head, rows, ours):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join([f"`{row[0]}`", *row[1:], answer(row[0], ours)]) + " |" for row in rows]
    have = sum(answer(row[0], ours) == "yes" for row in rows)
    return "\n".join(lines) + f"\n\n{have} of {len(rows)}.\n"


def main():
    own, used = lists_of(sys.argv[1]) if len(sys.argv) > 1 else committed_lists()
    # "|" inside of names would end a cell.
    ours = {name.replace("|", "¦") for path in glob.glob(OURS) for name in load(path)}
    own, used = ([(row[0].replace("|", "¦"), *row[1:]) for row in rows] for rows in (own, used))
    with open(PAGE, "w", encoding="utf-8") as f:
        f.write(TEXT + "## Its own nodes and variants\n\n" + table(["node", "August 2025", "2.5 to 2.6.3", "distorch"], own, ours))
        f.write("\n## Nodes in its twenty workflows\n\nOf \"page only\" ones a server never hears: a page puts their values where they belong, or"
                " keeps them to itself.\n`¦` stands for the upright line in a name.\n\n" + table(["node", "workflows", "distorch"], used, ours))


if __name__ == "__main__":
    main()
