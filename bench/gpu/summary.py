"""Joins the lists that the programs left in a folder and prints one table: summary.py FOLDER OUT
Writes OUT/gpu.json (all entries) and OUT/gpu.md (the table)."""
import json
import os
import sys

NETWORKS = ["sd15", "sdxl", "flux", "qwen_image", "sd35", "wan", "hunyuan_video"]
LISTS = ["placements_demo.json", "placements_sd15.json", "streaming.json", "peer_streaming.json", "ways.json", "opening.json", "peer_opening.json"] + [name + ".json" for name in NETWORKS]


def read(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def main(folder, out):
    entries = []
    # The networks in other forms: flux_int8.json.
    forms = sorted(name for name in os.listdir(folder) if name.endswith(".json") and name.rsplit("_", 1)[0] in NETWORKS and name not in LISTS)
    forms += sorted(name for name in os.listdir(folder) if name.startswith(("products_", "product_", "cards_")) and name.endswith(".json"))
    for name in LISTS + forms:
        for entry in read(os.path.join(folder, name)) or []:
            entries.append(dict(entry, part=name[:-5]))
    for name in sorted(name for name in os.listdir(folder) if name.startswith("filled_") and "facts" not in name):
        for entry in read(os.path.join(folder, name)) or []:
            entries.append(dict(entry, part=name[:-5]))
    for network in NETWORKS:
        ours_by_name = {entry["name"]: entry["ours"] for entry in entries if entry["part"] == network}
        peer = read(os.path.join(folder, network, "peer.json")) or {}
        for size, seconds in peer.get("compiled", {}).items():
            name = f"{peer['title']} step, {size if 'x' in size else size + ' px'}, batch {peer['batch']} / "
            ours = ours_by_name.get(name + "diffusers eager")
            entries.append({"part": network, "name": name + "torch.compile", "ours": ours, "peer": seconds,
                            "unit": "s", "ratio": ours / seconds if ours else None, "compile_s": peer["compile_s"][size]})
    text = ["| what | ours | compared with | unit | ratio |", "|---|---|---|---|---|"]
    number = lambda value: "" if value is None else f"{value:.4g}"
    for e in entries:
        text.append(f"| {e['name']} | {number(e['ours'])} | {number(e['peer'])} | {e['unit']} | {number(e['ratio'])} |")
    with open(os.path.join(out, "gpu.json"), "w") as file:
        json.dump(entries, file, indent=1)
    with open(os.path.join(out, "gpu.md"), "w") as file:
        file.write("\n".join(text) + "\n")
    for e in entries:
        print(f"{e['name'][:66]:<66}{number(e['ours']):>9}{number(e['peer']):>9} {e['unit']:<4}{number(e['ratio']):>7}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
