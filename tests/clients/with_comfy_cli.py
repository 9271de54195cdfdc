"""comfy-cli: `comfy run` of an API prompt and of a page's workflow, and of a prompt that is refused.

    python with_comfy_cli.py PROGRAM
"""
import json
import os
import subprocess
import sys

from client_case import CHECKOUT, PROMPT, check_png, picture, run_case, saved


def comfy(*words):
    """(exit status, the JSON object it ends with)"""
    done = subprocess.run([os.path.join(os.path.dirname(sys.executable), "comfy"), "--skip-prompt", "--no-enable-telemetry",
                           "--json", *words], capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)
    assert done.stdout.strip(), done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def case(server):
    def run(path):
        return comfy("run", "--workflow", path, "--wait", "--host", "127.0.0.1", "--port", str(server.port), "--timeout", "120")

    status, told = run(PROMPT)
    assert status == 0 and told["ok"] and told["data"]["status"] == "completed", told
    name = "heart_00001_.png"
    assert [name in url for url in told["data"]["outputs"]] == [True], told
    with open(os.path.join(server.folder, "output", name), "rb") as f:
        check_png(f.read())

    page = os.path.join(server.folder, "page.json")
    with open(os.path.join(CHECKOUT, "assets", "demo", "workflow.json"), encoding="utf-8") as f:
        text = f.read().replace("distorch-emoji-v1.safetensors", "emoji.safetensors")
    # It is written for two accelerators, which this server lacks.
    text = text.replace("cuda:0,40%;cuda:1,30%;cpu,30%", "").replace("cuda:0", "cpu")
    with open(page, "w", encoding="utf-8") as f:
        f.write(text)
    status, told = run(page)
    assert status == 0 and told["data"]["status"] == "completed", told

    wrong = os.path.join(server.folder, "wrong.json")
    with open(wrong, "w", encoding="utf-8") as f:
        json.dump(picture(steps=0), f)
    before = saved(server)
    status, told = run(wrong)
    assert status != 0 and not told["ok"] and "steps" in json.dumps(told["error"]), told
    assert saved(server) == before


run_case(case, "comfy_cli")
