"""What the tests of `distorch serve` need: a server in a folder of its own, requests, a web socket."""
import base64
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Server:
    """A running `distorch serve` with the demo model; start() again continues in the same folder. `launch` are words in
    front of the program's own: a command that sets limits and becomes the program."""

    def __init__(self, program, folder, *options, launch=()):
        self.program, self.folder, self.options, self.launch = program, folder, options, launch
        self.process, self.port, self.starts = None, 0, 0
        for source, target in (("assets/demo/models/checkpoints/distorch-emoji-v1.safetensors",
                                "models/checkpoints/emoji.safetensors"),
                               ("tests/parity/inputs/small.png", "input/small.png")):
            path = os.path.join(folder, target)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(os.path.join(CHECKOUT, source), path)

    def start(self):
        self.starts += 1
        log = os.path.join(self.folder, f"log{self.starts}")
        environment = dict(os.environ, CUDA_VISIBLE_DEVICES="", HOME=self.folder, OMP_WAIT_POLICY="passive",
                           XDG_CACHE_HOME=os.path.join(self.folder, ".cache"),
                           DISTORCH_TOKENIZERS=os.environ.get("DISTORCH_TOKENIZERS")
                           or os.path.join(CHECKOUT, ".deps", "tokenizers", "clip"))
        with open(log, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                [*self.launch, self.program, "serve", "--port", "0", "--models", "models", *self.options],
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        self.log = log
        found = wait_for(lambda: re.search(r"serving at https?://127\.0\.0\.1:(\d+)", self.said()), self)
        self.port = int(found.group(1))
        return self

    def said(self):
        with open(self.log, encoding="utf-8") as f:
            return f.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path, body=None, headers=None):
        """(status, text); a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url() + path, data=data, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()

    def json(self, path, body=None):
        status, text = self.ask(path, body)
        assert status == 200, f"{path}: {status} {text}"
        return json.loads(text)


def wait_for(condition, server=None, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        if server and server.process.poll() is not None:
            raise AssertionError(f"the server ended with {server.process.returncode}: {server.said()}")
        time.sleep(0.02)
    raise AssertionError("it did not happen in time" + (": " + server.said() if server else ""))


class Socket:
    """A web socket: text and binary messages, no extensions. `wrap` makes what it runs over of a connection (TLS)."""

    def __init__(self, port, client, wrap=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        if wrap:
            self.socket = wrap(self.socket)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /ws?clientId={client} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                             f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101"), head

    def take(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the server closed the socket")
            data += piece
        return data

    def frame(self):
        """(opcode, payload) of one whole message; pings are answered."""
        whole, kind = b"", 0
        while True:
            first, second = self.take(2)
            length = second & 127
            if length >= 126:
                length = struct.unpack(">H" if length == 126 else ">Q", self.take(2 if length == 126 else 8))[0]
            payload = self.take(length)
            if first & 15 == 9:
                self.send(payload, 10)
                continue
            kind = first & 15 or kind
            whole += payload
            if first & 128:
                return kind, whole

    def send(self, payload, opcode=1):
        if isinstance(payload, dict):
            payload = json.dumps(payload).encode()
        mask = os.urandom(4)
        head = bytes([128 | opcode]) + (bytes([128 | len(payload)]) if len(payload) < 126
                                        else bytes([128 | 126]) + struct.pack(">H", len(payload)))
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def message(self):
        """The next text message, or {"type": "#4", "payload": bytes} for a binary frame."""
        kind, payload = self.frame()
        if kind == 2:
            return {"type": f"#{struct.unpack('>I', payload[:4])[0]}", "payload": payload[4:]}
        assert kind == 1, (kind, payload)
        return json.loads(payload)

    def until_end(self, prompt_id):
        """All messages up to the last one of this prompt."""
        messages = []
        while True:
            messages.append(self.message())
            data = messages[-1].get("data", {})
            if messages[-1]["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                return messages
