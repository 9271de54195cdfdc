"""Workflows of a few nodes, run by the program: grids of numbers go in and out as files.

Latents are .latent files (exact numbers), pictures PNG (a 255th is forgiven); nothing but Python's own library.
"""
import array
import json
import math
import os
import struct
import subprocess
import tempfile
import zlib

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Grid:
    """Numbers in a row-major grid; an index is a tuple."""

    def __init__(self, shape, numbers):
        self.shape, self.numbers = tuple(shape), list(numbers)
        assert len(self.numbers) == math.prod(self.shape), (shape, len(self.numbers))

    def __getitem__(self, index):
        place = 0
        for size, at in zip(self.shape, index):
            assert 0 <= at < size, (self.shape, index)
            place = place * size + at
        return self.numbers[place]


def indices(shape):
    if not shape:
        yield ()
        return
    for first in range(shape[0]):
        for rest in indices(shape[1:]):
            yield (first, *rest)


def made(shape, value):
    """The grid whose number at each index is value(*index)."""
    return Grid(shape, [value(*index) for index in indices(shape)])


def write_latent(path, grid):
    body = array.array("f", grid.numbers).tobytes()
    header = json.dumps({
        "latent_tensor": {"dtype": "F32", "shape": grid.shape, "data_offsets": [0, len(body)]},
        "latent_format_version_0": {"dtype": "F32", "shape": [0], "data_offsets": [len(body), len(body)]},
    }).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + body)


def read_latent(path):
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8:8 + size])["latent_tensor"]
    first, last = entry["data_offsets"]
    numbers = array.array("f")
    numbers.frombytes(data[8 + size + first:8 + size + last])
    return Grid(entry["shape"], numbers)


def write_png(path, grid):
    """grid [height, width, channels], whole numbers of 0 to 255."""
    height, width, channels = grid.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = width * channels
    lines = b"".join(b"\0" + bytes(grid.numbers[y * row:(y + 1) * row]) for y in range(height))
    kind = {1: 0, 3: 2, 4: 6}[channels]
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def read_png(path):
    with open(path, "rb") as file:
        data = file.read()
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        content = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", content[:10])
            assert depth == 8, depth
            channels = {0: 1, 2: 3, 6: 4}[color]
        if kind == b"IDAT":
            packed += content
        at += 12 + size
    lines, row = zlib.decompress(packed), width * channels
    before, numbers = [0] * row, []
    for y in range(height):
        way, line = lines[y * (row + 1)], list(lines[y * (row + 1) + 1:(y + 1) * (row + 1)])
        for x in range(row):
            left = line[x - channels] if x >= channels else 0
            corner = before[x - channels] if x >= channels else 0
            guess = left + before[x] - corner
            nearest = min((left, before[x], corner), key=lambda value: abs(guess - value))
            line[x] = (line[x] + (0, left, before[x], (left + before[x]) // 2, nearest)[way]) % 256
        numbers += line
        before = line
    return Grid((height, width, channels), numbers)


class Workflow:
    """Nodes, and what is expected of some of their outputs."""

    def __init__(self, program):
        self.program, self.prompt, self.files, self.expected = program, {}, {}, {}

    def node(self, kind, **inputs):
        name = str(len(self.prompt) + 1)
        self.prompt[name] = {"class_type": kind, "inputs": {key.replace("__", "."): value for key, value in inputs.items()}}
        return [name, 0]

    def latent(self, grid):
        name = f"{len(self.files)}.latent"
        self.files[name] = grid
        return self.node("LoadLatent", latent=name)

    def picture(self, grid):
        name = f"{len(self.files)}.png"
        self.files[name] = grid
        return self.node("LoadImage", image=name)

    def mask(self, grid):
        """grid [height, width] of 0 to 255."""
        gray = made((*grid.shape, 3), lambda y, x, c: grid[y, x])
        return self.node("ImageToMask", image=self.picture(gray), channel="red")

    def expect_text(self, link, wanted, what):
        self.expected[self.node("PreviewAny", source=link)[0]] = (what, wanted)

    def expect_latent(self, link, wanted, what):
        self.expected[self.node("SaveLatent", samples=link, filename_prefix="x")[0]] = (what, wanted)

    def expect_picture(self, link, wanted, what):
        """wanted [height, width, channels]: 0 to 255; a list of them for a batch."""
        self.expected[self.node("SaveImage", images=link, filename_prefix="x")[0]] = (what, wanted)

    def expect_mask(self, link, wanted, what):
        """wanted [height, width]: 0 to 1."""
        gray = made((*wanted.shape, 3), lambda y, x, c: wanted[y, x] * 255)
        self.expect_picture(self.node("MaskToImage", mask=link), gray, what)

    def run(self):
        """The faults, one sentence each. Some nodes at a time: each event of a run names all of them."""
        faults, nodes = [], list(self.expected)
        for first in range(0, len(nodes), 60):
            faults += self.run_some(nodes[first:first + 60])
        return faults

    def needed(self, nodes):
        """The part of the workflow that these nodes need."""
        prompt, waiting = {}, list(nodes)
        while waiting:
            name = waiting.pop()
            if name not in prompt:
                prompt[name] = self.prompt[name]
                waiting += [value[0] for value in prompt[name]["inputs"].values() if isinstance(value, list)]
        return prompt

    def refusal(self, link):
        """What is said where the node cannot compute, without its place."""
        show = self.node("PreviewAny", source=link)[0]
        with tempfile.TemporaryDirectory() as folder:
            done = self.start(folder, [show])
            text = done.stderr.strip()
            place = f"distorch: node {link[0]} ({self.prompt[link[0]]['class_type']}): "
            if done.returncode != 1 or not text.startswith(place):
                return f"exit status {done.returncode}, {text!r}"
            return text[len(place):]

    def run_some(self, nodes):
        with tempfile.TemporaryDirectory() as folder:
            done = self.start(folder, nodes)
            if done.returncode != 0:
                return [done.stderr]
            events = [json.loads(line) for line in done.stdout.splitlines()]
            shown = {event["data"]["node"]: event["data"]["output"] for event in events if event["type"] == "executed"}
            faults = []
            for node in nodes:
                what, wanted = self.expected[node]
                fault = self.compare(os.path.join(folder, "output"), shown.get(node), wanted)
                if fault:
                    faults.append(f"{what}: {fault}")
            return faults

    def start(self, folder, nodes):
        os.mkdir(os.path.join(folder, "input"))
        for name, grid in self.files.items():
            (write_png if name.endswith(".png") else write_latent)(os.path.join(folder, "input", name), grid)
        with open(os.path.join(folder, "workflow.json"), "w", encoding="utf-8") as file:
            json.dump(self.needed(nodes), file)
        environment = dict(os.environ, CUDA_VISIBLE_DEVICES="", HOME=folder, OMP_WAIT_POLICY="passive",
                           DISTORCH_TOKENIZERS=os.environ.get("DISTORCH_TOKENIZERS")
                           or os.path.join(CHECKOUT, ".deps", "tokenizers", "clip"))
        return subprocess.run([self.program, "run", "workflow.json", "--json"], cwd=folder, env=environment, capture_output=True,
                              text=True, check=False)

    @staticmethod
    def compare(folder, shown, wanted):
        if not shown:
            return "was not computed"
        if isinstance(wanted, str):
            got = shown["text"][0]
            return "" if got == wanted else f"is {got!r}, not {wanted!r}"
        several = wanted if isinstance(wanted, list) else [wanted]
        files = shown.get("latents") or shown["images"]
        if len(files) != len(several):
            return f"are {len(files)} files, not {len(several)}"
        for saved, grid in zip(files, several):
            fault = Workflow.compare_file(os.path.join(folder, saved["filename"]), grid)
            if fault:
                return fault
        return ""

    @staticmethod
    def compare_file(path, wanted):
        got, slack = (read_latent(path), 2e-5) if path.endswith(".latent") else (read_png(path), 1.001)
        if got.shape != wanted.shape:
            return f"has shape {got.shape}, not {wanted.shape}"
        for index in indices(wanted.shape):
            if abs(got[index] - wanted[index]) > slack:
                return f"is {got[index]} at {index}, not {wanted[index]}"
        return ""
