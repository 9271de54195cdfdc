"""--allow-downloads, with the program itself and a hub of this test's own on 127.0.0.1.

    python download_test.py PROGRAM
"""
import array
import hashlib
import http.server
import json
import math
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM = os.path.abspath(sys.argv[1])
CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PARITY = os.path.join(CHECKOUT, "tests", "parity")
MODEL = "microsoft/Florence-2-base"


def weights():
    """A safetensors file with the tiny Florence-2's shapes."""
    with open(os.path.join(PARITY, "florence2.json"), encoding="utf-8") as f:
        shapes = json.load(f)["tensors"]
    header, body, numbers = {}, bytearray(), random.Random(1)
    for name, shape in shapes.items():
        count = math.prod(shape)
        values = array.array("f", (numbers.uniform(-0.1, 0.1) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + 4 * count]}
        body += values.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def contents():
    files = {"model.safetensors": weights(), "preprocessor_config.json": b'{"size": {"height": 64, "width": 64}}', "README.md": b"no"}
    for name in ("config.json", "vocab.json", "merges.txt"):
        with open(os.path.join(PARITY, "florence2", name), "rb") as f:
            files[name] = f.read()
    return files


class Hub(http.server.BaseHTTPRequestHandler):
    files = contents()
    stalls = threading.Event()   # the weights stop in the middle while it is set
    asked = []                   # paths and ranges
    closed = 0                   # what everything is answered with, where it is not 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        Hub.asked.append((self.path, self.headers.get("Range")))
        if Hub.closed:
            return self.give(Hub.closed, b"")
        if self.path.startswith(f"/api/models/{MODEL}/tree/main"):
            entries = []
            for name, data in Hub.files.items():
                entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
                if name == "model.safetensors":
                    entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}
                entries.append(entry)
            return self.give(200, json.dumps(entries).encode())
        data = Hub.files.get(self.path.removeprefix(f"/{MODEL}/resolve/main/"))
        if data is None:
            return self.give(404, b"")
        first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.give(206 if first else 200, data[first:], self.path.endswith(".safetensors") and Hub.stalls.is_set())

    def give(self, status, body, stall=False):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not stall:
            self.wfile.write(body)
            return
        self.wfile.write(body[:len(body) // 2])
        self.wfile.flush()
        while Hub.stalls.is_set():
            time.sleep(0.05)


def start(folder, *options):
    environment = dict(os.environ, CUDA_VISIBLE_DEVICES="", HOME=folder)
    return subprocess.Popen([PROGRAM, "run", "workflow.json", "--json", *options], cwd=folder, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def ended(process):
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mirror = f"http://127.0.0.1:{server.server_address[1]}"
    with tempfile.TemporaryDirectory(prefix="distorch_download_") as folder:
        os.makedirs(os.path.join(folder, "models"))
        workflow = {
            "1": {"class_type": "DownloadAndLoadFlorence2Model", "inputs": {"model": MODEL, "precision": "fp32", "attention": "sdpa"}},
            "2": {"class_type": "EmptyImage", "inputs": {"width": 48, "height": 32, "batch_size": 1, "color": 12345}},
            "3": {"class_type": "Florence2Run", "inputs": {"image": ["2", 0], "florence2_model": ["1", 0], "text_input": "", "task": "caption",
                                                           "fill_mask": True, "max_new_tokens": 4, "num_beams": 1, "do_sample": False}},
            "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 2]}}}
        with open(os.path.join(folder, "workflow.json"), "w", encoding="utf-8") as f:
            json.dump(workflow, f)
        place = os.path.join(folder, "models", "LLM", "Florence-2-base")
        part = os.path.join(folder, "models", "LLM", ".Florence-2-base.incomplete", "model.safetensors.part")

        status, _, error = ended(start(folder, "--download-mirror", mirror))
        assert status != 0 and "models/LLM/Florence-2-base" in error and "--allow-downloads" in error, error
        assert not Hub.asked, "asked without being allowed to"

        allowed = ("--allow-downloads", "--download-mirror", mirror)
        for Hub.closed in (401, 403):
            status, _, error = ended(start(folder, *allowed))
            for part_of_it in (f"{mirror}/{MODEL}", str(Hub.closed), "--download-token", "config.json", "models/LLM/Florence-2-base)"):
                assert status != 0 and part_of_it in error, (part_of_it, error)
            assert not os.path.exists(os.path.join(folder, "models", "LLM")) or not os.listdir(os.path.join(folder, "models", "LLM"))
        Hub.closed = 0
        Hub.asked.clear()
        Hub.stalls.set()
        process = start(folder, *allowed)
        for _ in range(600):
            if os.path.exists(part) and os.path.getsize(part) > 0:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        status, _, error = ended(process)
        Hub.stalls.clear()
        assert status == 130, (status, error)
        assert os.path.exists(part) and not os.path.exists(place)
        # What came in one piece and was not yet written counts as not come.
        kept = os.path.getsize(part)
        assert 0 < kept <= len(Hub.files["model.safetensors"]) // 2, kept

        Hub.asked.clear()
        status, out, error = ended(start(folder, *allowed))
        assert status == 0, error
        ranges = [r for path, r in Hub.asked if path.endswith("model.safetensors")]
        assert ranges == [f"bytes={kept}-"], (ranges, kept)
        assert '"progress"' in out, out
        assert sorted(os.listdir(place)) == sorted(set(Hub.files) - {"README.md"}), os.listdir(place)
        for name in os.listdir(place):
            with open(os.path.join(place, name), "rb") as f:
                assert f.read() == Hub.files[name], name
        assert not os.path.exists(os.path.dirname(part))

        server.shutdown()
        server.server_close()
        status, _, error = ended(start(folder))
        assert status == 0, error

        os.rename(place, place + "-gone")
        status, _, error = ended(start(folder, *allowed))
        assert status != 0 and mirror in error and "does not answer" in error, error
    print("without the option nothing was asked; an interrupted download went on")


main()
