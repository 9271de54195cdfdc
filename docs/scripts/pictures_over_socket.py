"""Runs a workflow that ends in SaveImageWebsocket and takes the pictures from the web socket: the server writes no file.

    pip install websocket-client
    python pictures_over_socket.py PROMPT.json [SERVER]
"""
import json
import sys
import urllib.request
import uuid

import websocket

# Before a picture: which kind of frame it is and which kind of picture, 4 bytes each.
HEAD = 8


def queue_prompt(server, prompt, client):
    body = json.dumps({"prompt": prompt, "client_id": client}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"http://{server}/prompt", data=body)) as answer:
        return json.load(answer)["prompt_id"]


def pictures(socket, prompt, prompt_id):
    """Those that come while a SaveImageWebsocket node runs; during other nodes they are previews."""
    node = None
    while True:
        frame = socket.recv()
        if not isinstance(frame, str):
            if node and prompt[node]["class_type"] == "SaveImageWebsocket":
                yield frame[HEAD:]
            continue
        message = json.loads(frame)
        if message["type"] == "executing" and message["data"].get("prompt_id") == prompt_id:
            node = message["data"]["node"]
            if node is None:
                return


def main():
    server = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:8188"
    with open(sys.argv[1], encoding="utf-8") as f:
        prompt = json.load(f)
    client = str(uuid.uuid4())
    socket = websocket.create_connection(f"ws://{server}/ws?clientId={client}")
    try:
        prompt_id = queue_prompt(server, prompt, client)
        for number, picture in enumerate(pictures(socket, prompt, prompt_id)):
            with open(f"picture_{number}.png", "wb") as f:
                f.write(picture)
            print(f"picture_{number}.png")
    finally:
        socket.close()


main()
