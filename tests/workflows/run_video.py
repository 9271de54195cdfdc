"""Runs a workflow that writes a video as it is on narrow models with random weights, twice: split over two simulated GPUs and RAM, and with
everything on the first one. run_video.py DISTORCH MAKE_RANDOM_MODEL RIG WORKFLOW WIDTHxHEIGHT FRAMES RATE [--set NODE.INPUT=VALUE ...]
Passes where both runs succeed and every file that they write is the same (but for the time of writing), and has that size, that many frames and that rate.
libx264 0.164 does not always make the same of the same frames on processors with AVX-512: where its packets differ, the frames that it gets have to be
the same, which two more runs save as PNG.
Where the workflow is not there it says so and exits with 77."""
import json
import os
import re
import sys
import tempfile

import run_workflow


def boxes(data, begin, end):
    """The boxes of an MP4 file between two places: kind, and where its content lies."""
    while begin + 8 <= end:
        size, kind = int.from_bytes(data[begin:begin + 4], "big"), data[begin + 4:begin + 8].decode("latin1")
        head = 8
        if size == 1:
            size, head = int.from_bytes(data[begin + 8:begin + 16], "big"), 16
        size = size or end - begin
        yield kind, begin + head, begin + size
        begin += size


def box(data, path, begin, end):
    for name in path:
        begin, end = next((b, e) for kind, b, e in boxes(data, begin, end) if kind == name)
    return begin, end


def of_mp4(data):
    """Width, height, frames and frames a second of the first track."""
    moov = box(data, ["moov"], 0, len(data))
    track = box(data, ["trak"], *moov)
    _, end = box(data, ["tkhd"], *track)
    width, height = (int.from_bytes(data[at:at + 2], "big") for at in (end - 8, end - 4))
    media, _ = box(data, ["mdia", "mdhd"], *track)
    wide = data[media] == 1
    scale = int.from_bytes(data[media + (20 if wide else 12):][:4], "big")
    times, _ = box(data, ["mdia", "minf", "stbl", "stts"], *track)
    frames = ticks = 0
    for i in range(int.from_bytes(data[times + 4:times + 8], "big")):
        count, each = (int.from_bytes(data[times + 8 + 8 * i + at:][:4], "big") for at in (0, 4))
        frames, ticks = frames + count, ticks + count * each
    return width, height, frames, scale * frames / ticks


def of_webp(data):
    """The same of an animated WebP."""
    width = height = frames = milliseconds = 0
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at:at + 4], int.from_bytes(data[at + 4:at + 8], "little")
        content = data[at + 8:at + 8 + size]
        if kind == b"VP8X":
            width, height = (1 + int.from_bytes(content[i:i + 3], "little") for i in (4, 7))
        if kind == b"ANMF":
            frames, milliseconds = frames + 1, milliseconds + int.from_bytes(content[12:15], "little")
        at += 8 + size + size % 2
    return width, height, frames, 1000 * frames / milliseconds


READERS = {".mp4": of_mp4, ".webp": of_webp}


def samples_of_flac(data):
    """Samples of each channel, and how many bytes there are for one of them: silence takes next to none."""
    header = data.index(b"fLaC") + 8
    samples = int.from_bytes(data[header + 13:header + 18], "big") & (1 << 36) - 1
    return samples, len(data) / max(samples, 1)


def without_chance(name, data):
    """What does not depend on the time and on numbers that a writer draws: of PNG the pixels, of MP4 the packets, of Matroska all but
    the numbers of the file and its tracks."""
    if name.endswith(".png"):
        return run_workflow.pixels_of(data)
    if name.endswith(".mp4"):
        begin, end = box(data, ["mdat"], 0, len(data))
        return data[begin:end]
    if not name.endswith(".webm"):
        return data
    return re.sub(b"\x73\xa4\x90.{16}|\x73\xc5\x88.{8}|\x63\xc5\x88.{8}", b"", data, flags=re.DOTALL)


def files_in(folder):
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(path, name), "rb") as file:
                found[os.path.relpath(os.path.join(path, name), folder)] = file.read()
    return found


def differences(written):
    """Names of files that two runs wrote differently, or that one of them did not write."""
    one, other = written
    return sorted(name for name in {**one, **other}
                  if name not in one or name not in other or without_chance(name, one[name]) != without_chance(name, other[name]))


def check(name, data, size, frames, rate):
    if name.endswith(".flac"):
        samples, bytes_each = samples_of_flac(data)
        if samples == 0 or bytes_each < 0.5:
            sys.exit(f"{name}: {samples} samples, {bytes_each:.3f} bytes for each: that is no sound")
        print(f"{name}: {samples} samples")
    reader = READERS.get(os.path.splitext(name)[1])
    if not reader:
        return
    width, height, count, speed = reader(data)
    if f"{width}x{height}" != size or count != int(frames) or abs(speed - float(rate)) > 0.02 * float(rate):
        sys.exit(f"{name}: {count} frames of {width}x{height}, {speed:.3f} a second; wanted {frames} of {size}, {rate}")


WRITERS = ("CreateVideo", "VHS_VideoCombine", "SaveAnimatedWEBP", "SaveWEBM")


def with_pictures(workflow, path):
    """The workflow, written to `path`, with a SaveImage beside each of its nodes that take the frames of a video; how many those are."""
    with open(workflow, encoding="utf-8") as file:
        graph = json.load(file)
    if "nodes" not in graph:
        taken = [node["inputs"]["images"] for node in graph.values() if node["class_type"] in WRITERS]
        for number, frames in enumerate(taken):
            graph[f"frames {number}"] = {"class_type": "SaveImage", "inputs": {"images": frames, "filename_prefix": "frames"}}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(graph, file)
        return len(taken)
    taken = {i["link"] for node in graph["nodes"] if node["type"] in WRITERS for i in node["inputs"] if i["type"] == "IMAGE"} - {None}
    number = max(node["id"] for node in graph["nodes"])
    link = max(one[0] for one in graph["links"])
    for _, origin, slot, *_ in [one for one in graph["links"] if one[0] in taken]:
        number, link = number + 1, link + 1
        graph["links"].append([link, origin, slot, number, 0, "IMAGE"])
        source = next(node for node in graph["nodes"] if node["id"] == origin)
        source["outputs"][slot]["links"].append(link)
        graph["nodes"].append({"id": number, "type": "SaveImage", "pos": [0, 0], "size": [1, 1], "flags": {}, "order": number, "mode": 0,
                               "inputs": [{"name": "images", "type": "IMAGE", "link": link}], "outputs": [], "properties": {},
                               "widgets_values": ["frames"]})
    with open(path, "w", encoding="utf-8") as file:
        json.dump(graph, file)
    return len(taken)


def main(distorch, maker, rig, workflow, size, frames, rate, *more):
    if not os.path.exists(workflow):
        print(f"skipped: {os.path.basename(workflow)} is not in this checkout")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        models, pictures = os.path.join(folder, "models"), os.path.join(folder, "input")
        run_workflow.write_pictures(workflow, pictures)
        print(run_workflow.run([maker, "--workflow", workflow, "--models", models, "--size", "tiny"]))

        def run_both(what, folder):
            outputs = []
            for name, options in run_workflow.placements(workflow).items():
                out = os.path.join(folder, name)
                run_workflow.run([distorch, "run", what, "--force-fp32", "--models", models, "--output", out, "--temp", os.path.join(folder, "temp"),
                                  "--input", pictures, "--rig", rig, *options, *more])
                outputs.append(files_in(out))
            return outputs

        written = run_both(workflow, folder)
        differing = differences(written)
        if differing and all(name.endswith(".mp4") for name in differing):
            what = os.path.join(folder, "with_pictures.json")
            if with_pictures(workflow, what) > 0:
                frames_of = [{name: data for name, data in files.items() if name.endswith(".png")} for files in run_both(what, os.path.join(folder, "again"))]
                if len(frames_of[0]) < int(frames):
                    sys.exit(f"only {sorted(frames_of[0])} were saved of {frames} frames")
                if not differences(frames_of):
                    print(f"encoded differently from the same {len(frames_of[0])} frames: {differing}")
                    differing = []
    if not any(os.path.splitext(name)[1] in READERS for name in written[0]):
        sys.exit(f"no video was written, but {sorted(written[0])}")
    if written[0].keys() != written[1].keys():
        sys.exit(f"split it writes {sorted(written[0])}, on one device {sorted(written[1])}")
    for name, data in written[0].items():
        check(name, data, size, frames, rate)
    if differing:
        sys.exit(f"{', '.join(differing)}: different split and on one device")
    print(f"the same {len(written[0])} files split and on one device: {frames} frames of {size}, {rate} a second")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
