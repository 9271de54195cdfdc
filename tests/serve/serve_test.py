"""`distorch serve` from outside: a prompt with its messages, previews, history and picture; kill -9 and a stop in the middle
of a queue; `distorch run --server`.

    python serve_test.py PROGRAM
"""
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

from client import CHECKOUT, Server, Socket, wait_for

PROMPTS = os.path.join(CHECKOUT, "tests", "cli", "prompts")


def picture(steps=4, seed=1, prefix="served"):
    with open(os.path.join(PROMPTS, "picture.json"), encoding="utf-8") as f:
        prompt = json.load(f)
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"].update(steps=steps, seed=seed)
        if node["class_type"] == "SaveImage":
            node["inputs"]["filename_prefix"] = prefix
    return prompt


def ids_of(items):
    return [item[1] for item in items]


def check_temp(server):
    """What an earlier process left in the folder for previews has gone, and nothing else."""
    assert os.listdir(os.path.join(server.folder, "temp")) == []
    assert os.listdir(os.path.join(server.folder, "input")) == ["small.png"]


def check_run(server):
    """One prompt over the socket, then the same again from the cache."""
    sampler = next(key for key, node in picture().items() if node["class_type"] == "KSampler")
    web = Socket(server.port, "me")
    hello = web.message()
    assert hello["type"] == "status" and hello["data"]["sid"] == "me", hello
    assert hello["data"]["status"]["exec_info"]["queue_remaining"] == 0, hello
    web.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    assert web.message()["type"] == "feature_flags"
    answer = server.json("/prompt", {"prompt": picture(), "client_id": "me", "prompt_id": "first",
                                     "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}}})
    assert answer == {"prompt_id": "first", "number": 0, "node_errors": {}}, answer
    messages = web.until_end("first")
    types = [message["type"] for message in messages]
    assert types[:4] == ["status", "status", "execution_start", "execution_cached"], types
    assert types[-3:] == ["execution_success", "status", "executing"], types
    assert messages[-2]["data"]["status"]["exec_info"]["queue_remaining"] == 0
    steps = [m["data"]["value"] for m in messages if m["type"] == "progress" and m["data"]["node"] == sampler]
    assert steps == [1, 2, 3, 4], steps
    frame = next(m for m in messages if m["type"] == "#4")["payload"]
    length = struct.unpack(">I", frame[:4])[0]
    about = json.loads(frame[4:4 + length])
    assert about["node_id"] == sampler and about["image_type"] == "image/jpeg", about
    assert frame[4 + length:4 + length + 2] == b"\xff\xd8"
    shown = next(m for m in messages if m["type"] == "executed")["data"]["output"]["images"][0]
    assert shown == {"filename": "served_00001_.png", "subfolder": "", "type": "output"}, shown
    with open(os.path.join(server.folder, "output", "served_00001_.png"), "rb") as f:
        png = f.read()
    assert png.startswith(b"\x89PNG") and b'workflow\x00{"id"' in png
    entry = server.json("/history/first")["first"]
    assert entry["status"]["status_str"] == "success" and entry["outputs"]
    server.json("/prompt", {"prompt": picture(), "client_id": "me", "prompt_id": "again"})
    types = [message["type"] for message in web.until_end("again")]
    assert types == ["status", "status", "execution_start", "execution_cached", "executed", "progress_state",
                     "execution_success", "status", "executing"], types
    jobs = server.json("/api/jobs?status=completed,failed,cancelled&limit=64")
    assert [job["id"] for job in jobs["jobs"]] == ["again", "first"], jobs
    assert jobs["jobs"][1]["preview_output"]["filename"] == "served_00001_.png"


def check_refusal(server):
    wrong = picture(steps="many")
    status, text = server.ask("/prompt", {"prompt": wrong})
    assert status == 400, text
    error = json.loads(text)
    assert error["error"]["type"] == "prompt_outputs_failed_validation", error
    assert len(error["node_errors"]) == 1
    assert server.ask("/prompt", "no prompt")[0] == 400
    assert server.json("/queue") == {"queue_running": [], "queue_pending": []}


def check_engine(server):
    plan = server.json("/distorch/plan", picture())
    assert plan["models"] and plan["seconds"] > 0, plan
    assert server.json("/distorch/devices")["devices"]
    assert server.json("/health")["status"] == "ok"
    status, metrics = server.ask("/metrics")
    assert status == 200 and 'distorch_prompts_ended_total{outcome="completed"} 2' in metrics, metrics
    placed = re.search(r"^distorch_models_placed_total (\d+)$", metrics, re.M)
    assert placed and int(placed.group(1)) > 0, metrics
    held = re.search(r'^distorch_device_held_bytes\{device="cpu"\} (\d+)$', metrics, re.M)
    assert held and int(held.group(1)) > 1 << 20, metrics


def running(server, prompt_id):
    return ids_of(server.json("/queue")["queue_running"]) == [prompt_id]


def fill(server, long):
    server.json("/prompt", {"prompt": picture(steps=10000, seed=5), "prompt_id": long})
    for name in ("a", "b"):
        server.json("/prompt", {"prompt": picture(seed=ord(name), prefix=name), "prompt_id": long + name})
    wait_for(lambda: running(server, long), server)


def check_crash(server):
    """kill -9 in the middle of a queue: everything goes on, the history is there."""
    fill(server, "long")
    server.kill()
    server.start()
    queue = server.json("/queue")
    assert ids_of(queue["queue_running"] + queue["queue_pending"]) == ["long", "longa", "longb"], queue
    assert list(server.json("/history")) == ["first", "again"]
    wait_for(lambda: running(server, "long"), server)
    server.ask("/interrupt", {"prompt_id": "long"})
    wait_for(lambda: "longb" in server.json("/history"), server)
    history = server.json("/history")
    assert list(history) == ["first", "again", "long", "longa", "longb"], list(history)
    assert history["long"]["status"]["messages"][-1][0] == "execution_interrupted"
    assert history["longb"]["status"]["status_str"] == "success"
    assert os.path.exists(os.path.join(server.folder, "output", "b_00001_.png"))


def check_stop(server):
    """SIGTERM: the running prompt waits for the next process, no file is left half-written."""
    fill(server, "later")
    assert server.stop() == 0, server.said()
    server.start()
    wait_for(lambda: running(server, "later"), server)
    server.ask("/queue", {"clear": True})
    server.ask("/interrupt", {})
    wait_for(lambda: "later" in server.json("/history"), server)
    assert server.json("/prompt")["exec_info"]["queue_remaining"] == 0
    names = os.listdir(os.path.join(server.folder, "output"))
    assert all(name.endswith("_.png") for name in names), names


def check_remote(server, program):
    """distorch run --server: pictures come here, progress and errors are shown as if it ran here."""
    def run(*words):
        return subprocess.run([program, "run", *words, "--server", server.url(), "--output", "here"], cwd=server.folder,
                              capture_output=True, text=True, timeout=120)
    file = os.path.join(PROMPTS, "picture.json")
    done = run(file, "--set", "KSampler.steps=3", "--quiet")
    assert done.returncode == 0, done.stderr
    path = os.path.join(server.folder, done.stdout.strip())
    assert os.path.dirname(path).endswith("here") and os.path.getsize(path) > 1000, done.stdout
    lines = run(file, "--set", "KSampler.steps=2", "--json").stdout.splitlines()
    types = [json.loads(line)["type"] for line in lines]
    assert types[0] == "execution_start" and types.count("progress") >= 2 and types[-1] == "executing", types
    bad = run(file, "--set", "KSampler.steps=0")
    assert bad.returncode == 1 and "Value 0 smaller than min of 1" in bad.stderr, bad.stderr


def check_token(program):
    with tempfile.TemporaryDirectory(prefix="distorch_serve_") as folder:
        server = Server(program, folder, "--auth-token", "secret", "--log-format", "json").start()
        try:
            assert server.ask("/queue")[0] == 401
            assert server.ask("/queue", headers={"Authorization": "Bearer secret"})[0] == 200
            assert server.ask("/health")[0] == 200
            assert all(json.loads(line)["level"] for line in server.said().splitlines())
        finally:
            server.kill()


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="distorch_serve_") as folder:
        os.makedirs(os.path.join(folder, "temp", "old"))
        server = Server(program, folder).start()
        try:
            check_temp(server)
            check_run(server)
            check_refusal(server)
            check_engine(server)
            check_crash(server)
            check_stop(server)
            check_remote(server, program)
        finally:
            server.kill()
    check_token(program)


main()
