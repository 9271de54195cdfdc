"""The example scripts of docs/scripts: a prompt is queued, followed over the socket, and its pictures come over the socket.

    python with_own_scripts.py PROGRAM
"""
import json
import os
import subprocess
import sys

from client_case import CHECKOUT, check_png, picture, run_case, saved
from client import wait_for


def case(server):
    here = os.path.join(server.folder, "here")
    os.mkdir(here)

    def run(script, prompt):
        with open(os.path.join(here, "prompt.json"), "w", encoding="utf-8") as f:
            json.dump(prompt, f)
        done = subprocess.run([sys.executable, os.path.join(CHECKOUT, "docs", "scripts", script), "prompt.json",
                               f"127.0.0.1:{server.port}"], cwd=here, capture_output=True, text=True, timeout=240)
        return done.returncode, done.stdout.split(), done.stderr

    def check_here(name):
        with open(os.path.join(here, name), "rb") as f:
            check_png(f.read())

    status, words, errors = run("queue_prompt.py", picture(prefix="queued"))
    assert status == 0 and len(words) == 1, errors
    wait_for(lambda: words[0] in server.json("/history"), server)
    assert saved(server) == ["queued_00001_.png"], saved(server)

    status, words, errors = run("wait_for_pictures.py", picture(prefix="waited", seed=2))
    assert (status, words) == (0, ["waited_00001_.png"]), (status, words, errors)
    assert "2 of 2" in errors, errors
    check_here("waited_00001_.png")

    prompt = picture(saver="SaveImageWebsocket", seed=3)
    for node in prompt.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"]["batch_size"] = 3
    before = saved(server)
    status, words, errors = run("pictures_over_socket.py", prompt)
    assert (status, words) == (0, ["picture_0.png", "picture_1.png", "picture_2.png"]), (status, words, errors)
    for name in words:
        check_here(name)
    assert saved(server) == before


run_case(case, "websocket")
