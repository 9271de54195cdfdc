"""kill -9 at random moments while a queue of cheap prompts runs: no accepted prompt is lost, no finished picture is lost,
none is half written, and what was interrupted runs again at most twice.

    python crash_test.py PROGRAM [--kills 50] [--queue 100] [--seed 1]

`make test` takes a short form (its defaults); by hand, the numbers above.
"""
import argparse
import json
import os
import random
import struct
import tempfile
import threading
import time
import urllib.error
import zlib

from client import Server, wait_for

# A prompt that was begun so often in all is not begun again.
MOST_BEGUN = 3


def cheap_prompt(name, number):
    """Two pictures of one colour, the larger ones so large that a kill may come while they are written."""
    side = 64 if number % 4 else 1024
    return {"1": {"class_type": "EmptyImage", "inputs": {"width": side, "height": side, "batch_size": 2, "color": number}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": name}}}


def is_whole(path):
    """Whether every chunk of a PNG is there with its checksum."""
    with open(path, "rb") as f:
        data = f.read()
    at, kind = 8, b""
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 4:at + 8 + length]
        if data[at + 8 + length:at + 12 + length] != struct.pack(">I", zlib.crc32(body)):
            return False
        at += 12 + length
    return data[:8] == b"\x89PNG\r\n\x1a\n" and kind == b"IEND" and at == len(data)


class Poster(threading.Thread):
    """Posts prompts until so many wait or run, or the server is gone; `accepted` are those that it answered."""

    def __init__(self, server, round_, names):
        super().__init__(daemon=True)
        self.server, self.round, self.names = server, round_, names
        self.accepted = []

    def run(self):
        for name in self.names:
            number = int(name.rpartition("_")[2]) + 1000 * self.round
            try:
                status, text = self.server.ask("/prompt", {"prompt": cheap_prompt(name, number), "prompt_id": name})
            except (OSError, urllib.error.URLError, EOFError):
                return
            except Exception as error:  # an answer cut in the middle: http.client has many names for it
                if "http.client" in type(error).__module__:
                    return
                raise
            assert status == 200, text
            self.accepted.append(name)


def history_of(server):
    """{id: ("success" or what its error says, names of its pictures)} of what has ended, or None where the server is not
    there."""
    try:
        status, text = server.ask("/history")
    except Exception:  # pylint: disable=broad-except
        return None
    if status != 200:
        return None
    return {key: ("success" if entry["status"]["completed"] else entry["status"]["messages"][-1][1].get("exception_message"),
                  [image["filename"] for output in entry["outputs"].values() for image in output["images"]])
            for key, entry in json.loads(text).items()}


def one_life(server, round_, options, chance):
    """Starts, fills the queue up, watches and kills. Gives what was accepted and what was seen to be finished."""
    server.start()
    waiting = server.json("/prompt")["exec_info"]["queue_remaining"]
    names = [f"k{round_}_{i}" for i in range(max(0, options.queue - waiting))]
    posters = [Poster(server, round_, names[i::4]) for i in range(4)]
    for poster in posters:
        poster.start()
    end = time.monotonic() + chance.uniform(0, 0.6)
    seen = {}
    while time.monotonic() < end:
        seen.update(history_of(server) or {})
        time.sleep(chance.uniform(0, 0.05))
    server.kill()
    for poster in posters:
        poster.join()
    return [name for poster in posters for name in poster.accepted], seen


def pictures_of(folder):
    """Nothing else may lie beside them where files can be without a name until they are whole."""
    output = os.path.join(folder, "output")
    names = sorted(os.listdir(output))
    pictures = [name for name in names if name.endswith("_.png")]
    try:
        os.close(os.open(output, os.O_WRONLY | os.O_TMPFILE))
    except OSError:
        return pictures
    assert names == pictures, [name for name in names if name not in pictures]
    return pictures


def check_end(server, accepted, seen, kills):
    server.start()
    wait_for(lambda: server.json("/prompt")["exec_info"]["queue_remaining"] == 0, server, 300)
    assert server.json("/health")["history_kept"], server.said()
    history = history_of(server)
    lost = [name for name in accepted if name not in history]
    assert not lost, f"accepted and lost: {lost}"
    changed = [name for name, entry in seen.items() if history.get(name) != entry]
    assert not changed, f"finished before a kill and not the same after it: {changed}"
    there = pictures_of(server.folder)
    broken = [name for name in there if not is_whole(os.path.join(server.folder, "output", name))]
    assert not broken, f"half written: {broken}"
    extra = 0
    for name, (status, files) in history.items():
        given_up = f"ended {MOST_BEGUN} times while it ran this prompt" in status
        assert status == "success" or given_up, (name, status)
        missing = [file for file in files if file not in there]
        assert not missing, f"{name} lost {missing}"
        count = sum(file.startswith(name + "_0") for file in there)
        assert len(files) == 2 or given_up, (name, files)
        assert count <= 2 * MOST_BEGUN, f"{name} ran too often: {count} pictures"
        extra += max(0, count - 2)
    # One prompt runs at a time, so a kill repeats at most one.
    assert extra <= 2 * kills, f"{extra} pictures too many after {kills} kills"
    return len(history), len(there), extra


def check_given_up(program):
    """A prompt that is running at each of three kills is not begun a fourth time."""
    with tempfile.TemporaryDirectory(prefix="distorch_crash_") as folder:
        server = Server(program, folder).start()
        try:
            with open(os.path.join(os.path.dirname(__file__), "..", "cli", "prompts", "picture.json"), encoding="utf-8") as f:
                prompt = json.load(f)
            prompt["5"]["inputs"]["steps"] = 10000
            server.json("/prompt", {"prompt": prompt, "prompt_id": "deadly"})
            server.json("/prompt", {"prompt": cheap_prompt("after", 1), "prompt_id": "after"})
            for _ in range(MOST_BEGUN):
                wait_for(lambda: [job[1] for job in server.json("/queue")["queue_running"]] == ["deadly"], server)
                server.kill()
                server.start()
            wait_for(lambda: len(server.json("/history")) == 2, server)
            entry = server.json("/history")["deadly"]
            assert entry["status"]["status_str"] == "error", entry
            message = entry["status"]["messages"][-1][1]["exception_message"]
            assert "ended 3 times while it ran this prompt" in message, message
            assert server.json("/history")["after"]["status"]["status_str"] == "success"
        finally:
            server.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--queue", type=int, default=40)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 30)
    chance = random.Random(seed)
    print("seed", seed, flush=True)
    accepted, seen = [], {}
    with tempfile.TemporaryDirectory(prefix="distorch_crash_") as folder:
        server = Server(options.program, folder)
        try:
            for round_ in range(options.kills):
                new, finished = one_life(server, round_, options, chance)
                accepted += new
                seen.update(finished)
            prompts, pictures, extra = check_end(server, accepted, seen, options.kills)
        finally:
            if server.process:
                server.kill()
    print(f"{options.kills} kills: {len(accepted)} accepted, {prompts} ended, {pictures} pictures, {extra} of them made again")
    check_given_up(options.program)


main()
