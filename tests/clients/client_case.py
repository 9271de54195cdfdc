"""What the tests of clients share: a server for each, prompts for the demo model, and how one is skipped."""
import importlib.util
import json
import os
import struct
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "serve"))
from client import CHECKOUT, Server  # noqa: E402

PROMPT = os.path.join(CHECKOUT, "tests", "cli", "prompts", "picture.json")
SKIPPED = 77


def picture(steps=2, seed=1, prefix="client", saver="SaveImage"):
    """An API prompt of one picture of 64 x 64 pixels."""
    with open(PROMPT, encoding="utf-8") as f:
        prompt = json.load(f)
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"].update(steps=steps, seed=seed)
        if node["class_type"] == "SaveImage":
            node["class_type"] = saver
            node["inputs"]["filename_prefix"] = prefix
            if saver != "SaveImage":
                del node["inputs"]["filename_prefix"]
        node["_meta"] = {"title": node["class_type"]}
    return prompt


def check_png(data, width=64, height=64):
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:16]
    assert struct.unpack(">II", data[16:24]) == (width, height), data[16:24]


def saved(server):
    folder = os.path.join(server.folder, "output")
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def run_case(case, *packages):
    """case(server) against a fresh server; ends the process as skipped where a package is missing."""
    for package in packages:
        if not importlib.util.find_spec(package):
            print(f"skipped: no Python package {package}; tools/setup_clients.sh installs it")
            sys.exit(SKIPPED)
    # The home folder of the clients is the server's, so that they find no configuration and leave none behind.
    with tempfile.TemporaryDirectory(prefix="distorch_client_") as folder:
        os.environ.update(HOME=folder, DO_NOT_TRACK="1", OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "2"))
        server = Server(os.path.abspath(sys.argv[1]), folder).start()
        try:
            case(server)
        finally:
            server.kill()
