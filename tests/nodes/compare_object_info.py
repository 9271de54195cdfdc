"""Where the signatures of our nodes differ from those that ComfyUI shows.

    python compare_object_info.py OURS OBJECT_INFO... [--all]

OURS is the answer of GET /object_info of distorch, or the address of a running server; the others are answers of ComfyUI's, the
newest first (0.33, 0.3.64). What equals one of them in a point is no difference; with --all what is unlike the first of them is shown
beside it. Prose, marks of the page and files of folders are not compared. Exits with 1 where something is shown.
"""
import argparse
import json
import urllib.request

PROSE = {"tooltip", "advanced", "display_name", "description"}
FIELDS = ("output", "output_name", "output_is_list", "output_node", "is_input_list")
UPLOADS = ("image_upload", "animated_image_upload", "video_upload", "audio_upload", "file_upload")


def read(place):
    if place.startswith("http"):
        with urllib.request.urlopen(place.rstrip("/") + "/object_info", timeout=60) as answer:
            return json.load(answer)
    with open(place, encoding="utf-8") as f:
        return json.load(f)


def plain(value):
    """Without prose, at any depth."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items() if key not in PROSE}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def facts(definition):
    """Each point of a signature under a name of its own."""
    found = {field: definition.get(field, False) for field in FIELDS}
    found["hidden"] = sorted(definition["input"].get("hidden", {}))
    for part in ("required", "optional"):
        for name, entry in definition["input"].get(part, {}).items():
            kind, options = entry[0], dict(plain(entry[1])) if len(entry) > 1 else {}
            if isinstance(kind, list):
                kind, options = "COMBO", {**options, "options": kind}
            if any(options.get(upload) for upload in UPLOADS):
                options.pop("options", None)
            found[f"{name}: part"] = part
            found[f"{name}: type"] = kind
            for key, value in options.items():
                # Said or not said, it means the same.
                if not (key in ("multiselect", "multiline", "options") and not value):
                    found[f"{name}: {key}"] = value
    return found


def shown(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 120 else text[:117] + "..."


def difference(ours, theirs):
    if isinstance(ours, list) and isinstance(theirs, list):
        lacks = [entry for entry in theirs if entry not in ours]
        more = [entry for entry in ours if entry not in theirs]
        if lacks or more:
            return f"lacks {shown(lacks)}, has besides {shown(more)}"
        return "another order"
    return f"{shown(ours)}, there {shown(theirs)}"


def compare(ours, references, every):
    a, others = facts(ours), [facts(reference) for reference in references]
    alone = {point.split(":")[0] for point in a if point.endswith(": part") and not any(point in other for other in others)}
    for name in sorted(alone):
        yield f"{name}: ours alone has it"
    for point in sorted(set(a).union(*others)):
        if point.split(":")[0] in alone:
            continue
        values = [other.get(point) for other in others]
        if a.get(point) == values[0] or (not every and a.get(point) in values):
            continue
        yield f"{point}: {difference(a.get(point), values[0])}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ours")
    parser.add_argument("references", nargs="+")
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    ours, references = read(options.ours), [read(place) for place in options.references]
    count = 0
    for name in sorted(ours):
        known = [reference[name] for reference in references if name in reference]
        lines = list(compare(ours[name], known, options.all)) if known else ["no ComfyUI that was given has it"]
        for line in lines:
            print(f"{name}: {line}")
        count += len(lines)
    print(f"{len(ours)} nodes, {count} differences")
    return count > 0


if __name__ == "__main__":
    raise SystemExit(main())
