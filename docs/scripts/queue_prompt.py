"""Puts a workflow into the queue of a server and says under which id; nothing is waited for.

    python queue_prompt.py PROMPT.json [SERVER]

PROMPT.json is what the page saves by "Export (API)". SERVER is 127.0.0.1:8188 where it is not given. No packages are needed.
"""
import json
import sys
import urllib.request


def queue_prompt(server, prompt):
    request = urllib.request.Request(f"http://{server}/prompt", data=json.dumps({"prompt": prompt}).encode())
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["prompt_id"]


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        prompt = json.load(f)
    # Any input of any node can be changed before it is sent.
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["seed"] = 5
    print(queue_prompt(sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:8188", prompt))


main()
