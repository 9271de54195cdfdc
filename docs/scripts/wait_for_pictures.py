"""Runs a workflow on a server, follows it over the web socket, and brings the pictures that it saved into the current folder.

    pip install websocket-client
    python wait_for_pictures.py PROMPT.json [SERVER]
"""
import json
import sys
import urllib.parse
import urllib.request
import uuid

import websocket


def ask(server, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"http://{server}{path}", data=data)) as answer:
        return answer.read()


def wait(socket, prompt_id):
    """Until the run is over, whatever its outcome."""
    while True:
        frame = socket.recv()
        # Binary frames are previews.
        if not isinstance(frame, str):
            continue
        message = json.loads(frame)
        data = message["data"]
        if message["type"] == "progress":
            print(f"node {data['node']}: {data['value']} of {data['max']}", file=sys.stderr)
        if message["type"] == "execution_error":
            sys.exit(f"node {data['node_id']}: {data['exception_message']}")
        if message["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
            return


def main():
    server = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:8188"
    with open(sys.argv[1], encoding="utf-8") as f:
        prompt = json.load(f)
    client, prompt_id = str(uuid.uuid4()), str(uuid.uuid4())
    socket = websocket.create_connection(f"ws://{server}/ws?clientId={client}")
    try:
        ask(server, "/prompt", {"prompt": prompt, "client_id": client, "prompt_id": prompt_id})
        wait(socket, prompt_id)
    finally:
        socket.close()
    outputs = json.loads(ask(server, f"/history/{prompt_id}"))[prompt_id]["outputs"]
    for output in outputs.values():
        for image in output.get("images", []):
            with open(image["filename"], "wb") as f:
                f.write(ask(server, "/view?" + urllib.parse.urlencode(image)))
            print(image["filename"])


main()
