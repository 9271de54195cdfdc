"""Runs a workflow as it is on narrow models with random weights, twice: split over two simulated GPUs and RAM, and with everything on the
first one. run_workflow.py DISTORCH MAKE_RANDOM_MODEL RIG WORKFLOW WIDTHxHEIGHT [--set NODE.INPUT=VALUE ...]
A workflow that names devices is split as it says, another one by an allocation for all of its models.
Passes where both runs succeed, the pictures have that size and the same pixels, and are not flat. Where the file is not there (those of
others are not in the repository) it says so and exits with 77."""
import json
import os
import subprocess
import sys
import tempfile
import zlib


def run(command):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        sys.exit(f"failed with {result.returncode}: {' '.join(command)}\n{result.stdout[-4000:]}")
    return result.stdout


def pixels(path):
    """Width, height, and the unpacked (still filtered) rows of a PNG file."""
    with open(path, "rb") as file:
        return pixels_of(file.read())


def pixels_of(data):
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at, packed = 8, b""
    while at < len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        if data[at + 4:at + 8] == b"IDAT":
            packed += data[at + 8:at + 8 + size]
        at += size + 12
    return width, height, zlib.decompress(packed)


def picture(folder):
    found = sorted(os.path.join(path, name) for path, _, names in os.walk(folder) for name in names if name.endswith(".png"))
    if not found:
        sys.exit("no picture was written")
    return pixels(found[-1])


def pictures_of(graph):
    """The names that the LoadImage nodes of a workflow, of the page or of the API, load."""
    if "nodes" in graph:
        return [node["widgets_values"][0] for node in graph["nodes"] if node["type"] == "LoadImage"]
    return [node["inputs"]["image"] for node in graph.values() if node["class_type"] == "LoadImage"]


def write_pictures(workflow, folder):
    """A small picture under every name that the workflow loads."""
    os.makedirs(folder, exist_ok=True)
    with open(workflow, encoding="utf-8") as file:
        names = pictures_of(json.load(file))
    width, height = 128, 96
    rows = b"".join(b"\0" + bytes((x * 2 + c * 40 + y) % 256 for x in range(width) for c in range(3)) for y in range(height))
    for name in names:
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n")
            header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
            for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
                file.write(len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big"))


def placements(workflow):
    """Options for a run as the workflow says, split where it says nothing, and for one with everything on the first device."""
    with open(workflow, encoding="utf-8") as file:
        text = file.read()
    names_devices = "cuda:1" in text or "cuda:2" in text

    def devices(others):
        return [option for name, device in (("cuda:0", "sim:0"), ("cuda:1", others), ("cuda:2", others))
                for option in ("--device-map", f"{name}={device}")]
    split = [] if names_devices else ["--placement", "sim:0,30%;sim:1,30%;cpu,40%"]
    return {"split": [*devices("sim:1"), *split], "one": [*devices("sim:0"), "--placement", "sim:0,100%"]}


def main(distorch, maker, rig, workflow, size, *more):
    if not os.path.exists(workflow):
        print(f"skipped: {os.path.basename(workflow)} is not in this checkout")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        models = os.path.join(folder, "models")
        pictures = os.path.join(folder, "input")
        write_pictures(workflow, pictures)
        print(run([maker, "--workflow", workflow, "--models", models, "--size", "tiny"]))
        results = []
        for name, options in placements(workflow).items():
            out = os.path.join(folder, name)
            run([distorch, "run", workflow, "--force-fp32", "--models", models, "--output", out, "--temp", os.path.join(folder, "temp"), "--input", pictures,
                 "--rig", rig, *options, *more])
            results.append(picture(out))
    for width, height, rows in results:
        if f"{width}x{height}" != size:
            sys.exit(f"the picture has {width}x{height} pixels, not {size}")
        if len(set(rows[:100000])) < 16:
            sys.exit("the picture is flat")
    if results[0] != results[1]:
        sys.exit("placed as the workflow says it gives other pixels than on one device")
    print("same pixels split and on one device,", size)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
