"""Faults around a running server: full disk, folders that cannot be written, a database that is locked or damaged,
clients that vanish, do not read, send frames and bodies that are none, a 1 GB body, ten thousand connections, every kind of
invalid JSON. Each time the process lives on, others are served and what went wrong is said.

    python faults_test.py PROGRAM [--connections 10000] [--body 1073741824] [NAME...]

`make test` takes a short form (its defaults); names pick single checks.
"""
import argparse
import json
import os
import resource
import shutil
import socket
import sqlite3
import struct
import subprocess
import tempfile
import threading
import time

from client import Server, Socket, wait_for
from invalid_json import BODIES

DATABASE = "user/distorch-jobs.sqlite"


def cheap(seed, side=64, prefix="cheap"):
    return {"1": {"class_type": "EmptyImage", "inputs": {"width": side, "height": side, "batch_size": 1, "color": seed}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}}}


def entry_of(server, name):
    return wait_for(lambda: server.json("/history/" + name).get(name), server)


def run(server, name, prompt):
    """How a prompt ended."""
    server.json("/prompt", {"prompt": prompt, "prompt_id": name})
    return entry_of(server, name)


_seeds = iter(range(1, 1 << 20))


def serves(server):
    """Answers, and runs a prompt."""
    seed = next(_seeds)
    entry = run(server, f"fine{seed}", cheap(seed, prefix=f"fine{seed}"))
    assert entry["status"]["status_str"] == "success", entry
    with open(os.path.join(server.folder, "output", f"fine{seed}_00001_.png"), "rb") as f:
        assert f.read().endswith(b"IEND\xaeB`\x82")


def memory(server, key="VmRSS"):
    """In MiB."""
    with open(f"/proc/{server.process.pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key)) / 1024


def error_of(entry):
    assert entry["status"]["status_str"] == "error", entry
    return entry["status"]["messages"][-1][1]["exception_message"]


class Raw:
    """A connection that sends what it likes."""

    def __init__(self, server, timeout=60):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=timeout)

    def send(self, data):
        self.socket.sendall(data)

    def receive(self):
        """All until the other side closes."""
        data = b""
        try:
            while piece := self.socket.recv(65536):
                data += piece
        except ConnectionError:
            pass
        return data

    def vanish(self):
        """Closes with a reset, as a machine that is switched off and on."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def fresh(options, *words, launch=(), prepare=None):
    """A server in a folder of its own, as a context."""
    class Context:
        def __enter__(self):
            self.folder = tempfile.TemporaryDirectory(prefix="distorch_faults_")  # pylint: disable=consider-using-with
            self.server = Server(options.program, self.folder.name, *words, launch=launch)
            if prepare:
                prepare(self.folder.name)
            return self.server.start()

        def __exit__(self, *_):
            if self.server.process.poll() is None:
                self.server.kill()
            self.folder.cleanup()
    return Context()


def mounted(folder, what):
    """Words that give the program a file system of its own at `folder` (below its current folder), where the system
    lets an ordinary user do that; None where it does not."""
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
             f'mkdir -p {folder} && mount -t tmpfs -o {what} tmpfs {folder} && exec "$@"', "sh"]
    with tempfile.TemporaryDirectory() as place:
        try:
            done = subprocess.run([*words, "true"], cwd=place, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        except OSError:
            return None
    return words if done.returncode == 0 else None


def check_full_disk(options):
    """No room for the picture: the prompt fails and says so, nothing half is left; with room again the next one runs."""
    launch = mounted("output", "size=64k")
    if not launch:
        return "left out: no mounts for ordinary users here"
    with fresh(options, launch=launch) as server:
        inside = f"/proc/{server.process.pid}/root{os.path.realpath(server.folder)}/output"
        with open(os.path.join(inside, "filler"), "wb") as f:
            f.write(b"x" * 60000)
        sentence = error_of(run(server, "full", cheap(1, 4096)))
        assert "No space left on device" in sentence and "cheap_" in sentence, sentence
        assert os.listdir(inside) == ["filler"], os.listdir(inside)
        os.remove(os.path.join(inside, "filler"))
        assert run(server, "room", cheap(2))["status"]["status_str"] == "success"
        assert os.listdir(inside) == ["cheap_00001_.png"], os.listdir(inside)
        assert server.json("/health")["history_kept"] is True
    return ""


def check_full_database(options):
    """No room for the database, from the start or later: prompts run, the history is in memory, and that is said."""
    launch = mounted("user", "size=256k")
    if not launch:
        return "left out: no mounts for ordinary users here"
    with fresh(options, launch=launch) as server:
        assert run(server, "before", cheap(1))["status"]["status_str"] == "success"
        assert server.json("/health")["history_kept"] is True
        inside = f"/proc/{server.process.pid}/root{os.path.realpath(server.folder)}/user"
        with open(os.path.join(inside, "filler"), "wb") as f:
            try:
                f.write(b"x" * (1 << 20))
            except OSError:
                pass
        for i in range(20):
            server.json("/prompt", {"prompt": cheap(10 + i), "prompt_id": f"p{i}"})
        wait_for(lambda: server.json("/prompt")["exec_info"]["queue_remaining"] == 0, server)
        health = server.json("/health")
        assert health["history_kept"] is False and "full" in health["problem"], health
        assert len(server.json("/history")) == 21
    return ""


def check_file_size_limit(options):
    """A limit on the size of files (ulimit -f) ends no process: pictures and the database say that they cannot grow."""
    with fresh(options, launch=["prlimit", "--fsize=12288"]) as server:
        sentence = error_of(run(server, "large", cheap(1, 4096)))
        assert "File too large" in sentence, sentence
        assert [name for name in os.listdir(os.path.join(server.folder, "output")) if "part" in name] == []
        assert server.json("/health")["history_kept"] is False
        assert run(server, "small", cheap(2))["status"]["status_str"] == "success"
    return ""


def check_read_only_output(options):
    """An output folder that cannot be written: said at the start and by the prompt; other work goes on."""
    launch = mounted("output", "ro")
    prepare = None
    if not launch:
        if os.geteuid() == 0:
            return "left out: root writes everywhere, and no mounts here"
        launch = ()

        def prepare(folder):
            os.makedirs(os.path.join(folder, "output"), mode=0o555)
    with fresh(options, launch=launch, prepare=prepare) as server:
        assert "output" in server.said() and "cannot be written" in server.said(), server.said()
        sentence = error_of(run(server, "picture", cheap(1)))
        assert "output folder that cannot be written" in sentence, sentence
        shown = cheap(1)
        shown["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
        assert run(server, "shown", shown)["status"]["status_str"] == "success"
    return ""


def check_output_is_a_file(options):
    def prepare(folder):
        with open(os.path.join(folder, "output"), "w", encoding="utf-8") as f:
            f.write("mine")
    with fresh(options, prepare=prepare) as server:
        assert "cannot be written" in server.said(), server.said()
        assert "output" in error_of(run(server, "picture", cheap(1)))
        with open(os.path.join(server.folder, "output"), encoding="utf-8") as f:
            assert f.read() == "mine"
    return ""


def check_locked_database(options):
    """Held by another program, and by another server: served without history, the file stays as it is."""
    def prepare(folder):
        os.makedirs(os.path.join(folder, "user"))
        prepare.holder = sqlite3.connect(os.path.join(folder, DATABASE), isolation_level=None)
        prepare.holder.execute("CREATE TABLE theirs(a)")
        prepare.holder.execute("BEGIN EXCLUSIVE")
    with fresh(options, prepare=prepare) as server:
        health = server.json("/health")
        assert health["history_kept"] is False and "in use by another process" in health["problem"], health
        serves(server)
        prepare.holder.execute("COMMIT")
        assert prepare.holder.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
        prepare.holder.close()
    with fresh(options) as first:
        second = Server(options.program, tempfile.mkdtemp(prefix="distorch_faults_"),
                        "--user-directory", os.path.join(first.folder, "user"))
        try:
            second.start()
            assert "in use" in second.json("/health")["problem"]
            serves(second)
            serves(first)
            assert first.json("/health")["history_kept"] is True
        finally:
            second.kill()
            shutil.rmtree(second.folder)
    return ""


def filled(server, count=60):
    """Has so many prompts in its history and was killed."""
    for i in range(count):
        server.json("/prompt", {"prompt": cheap(1000 + i), "prompt_id": f"old{i}",
                                "extra_data": {"note": "x" * 3000}})
    wait_for(lambda: server.json("/prompt")["exec_info"]["queue_remaining"] == 0, server)
    server.stop()


def put_back(copy, whole):
    """The copy, without what a killed server left beside the file."""
    for end in ("-wal", "-shm"):
        if os.path.exists(whole + end):
            os.remove(whole + end)
    shutil.copy(copy, whole)


def damage(path, chunks):
    with open(path, "r+b") as f:
        for at, data in chunks:
            f.seek(at)
            f.write(data)


def check_damaged_database(options):
    """Nonsense at the beginning, in the middle, at the end cut off, in a row: served, said, the file is not made worse."""
    with fresh(options) as server:
        filled(server)
        whole = os.path.join(server.folder, DATABASE)
        size = os.path.getsize(whole)
        copy = whole + ".copy"
        shutil.copy(whole, copy)
        pages = range(1, size // 4096)
        for kind, chunks, cut in (("head", [(0, b"nonsense" * 16)], None),
                                  ("schema", [(100, b"\xff" * 2000)], None),
                                  ("every second page", [(page * 4096, b"\xa5" * 4096) for page in pages[::2]], None),
                                  ("all but the first page", [(page * 4096, b"\x5a" * 4096) for page in pages], None),
                                  ("cut", [], size // 2 // 4096 * 4096 + 17),
                                  ("empty", [], 0)):
            put_back(copy, whole)
            damage(whole, chunks)
            if cut is not None:
                os.truncate(whole, cut)
            server.start()
            for path in ("/history", "/history?max_items=5", "/api/jobs", "/api/jobs?sort_by=execution_duration",
                         "/history/old3", "/api/jobs/old3", "/queue"):
                status, text = server.ask(path)
                assert status in (200, 404), (kind, path, status, text)
            serves(server)
            problem = server.json("/health").get("problem", "")
            assert kind == "empty" or "damaged" in problem, (kind, problem)
            server.kill()
        connection = sqlite3.connect(copy)
        connection.execute("UPDATE jobs SET prompt='{', ended=NULL, state=0 WHERE id='old5'")
        connection.execute("UPDATE jobs SET ended=NULL, state=0 WHERE id='old6'")
        connection.commit()
        connection.close()
        put_back(copy, whole)
        server.start()
        assert "old5" in server.said(), server.said()
        assert entry_of(server, "old6")["status"]["status_str"] == "success"
        assert len(server.json("/history")) >= 59
        serves(server)
    return ""


def check_vanishing_clients(options):
    with fresh(options) as server:
        request = b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{\"prompt\""
        for _ in range(50):
            for data in (b"", b"GET /obj", request, b"GET /object_info HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                raw = Raw(server)
                raw.send(data)
                raw.vanish()
        for i in range(20):
            web = Socket(server.port, f"gone{i}")
            server.json("/prompt", {"prompt": cheap(i, prefix="gone"), "client_id": f"gone{i}"})
            web.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            web.socket.close()
        wait_for(lambda: server.json("/prompt")["exec_info"]["queue_remaining"] == 0, server)
        assert len(server.json("/history")) == 20
        serves(server)
    return ""


def check_slow_readers(options):
    """Sockets and answers that nobody takes: their memory is bounded, others do not wait."""
    with fresh(options) as server:
        serves(server)
        before = memory(server)
        idle = [Socket(server.port, f"slow{i}") for i in range(20)]
        raws = []
        for _ in range(20):
            raws.append(Raw(server))
            raws[-1].socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raws[-1].send(b"GET /object_info HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
        for i in range(200):
            server.json("/prompt", {"prompt": cheap(i, prefix="slow"), "client_id": f"slow{i % 20}"})
        wait_for(lambda: server.json("/prompt")["exec_info"]["queue_remaining"] == 0, server)
        begin = time.monotonic()
        serves(server)
        assert time.monotonic() - begin < 10
        grown = memory(server) - before
        assert grown < 300, f"{grown} MiB more for 40 clients that do not read"
        del idle, raws
    return ""


FRAMES = [b"\x81\x05hello",                                # without a mask
          b"\x83\x80\0\0\0\0", b"\x8f\x80\0\0\0\0",        # reserved kinds
          b"\xf1\x80\0\0\0\0",                             # reserved bits
          b"\x80\x80\0\0\0\0",                             # goes on where nothing began
          b"\x01\x80\0\0\0\0\x01\x80\0\0\0\0",             # begins twice
          b"\x89\xfe\x00\x80\0\0\0\0" + b"x" * 128,        # a ping of more than 125 bytes
          b"\x09\x80\0\0\0\0",                             # a ping in pieces
          b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff",     # more bytes than there are
          b"\x81\xff\x00\x00\x00\x00\x40\x00\x00\x00",     # a gigabyte
          b"\x81\xfe\x00\x01\0\0\0\0a",                    # a length in more bytes than it needs
          b"\x81\x82\0\0\0\0\xff\xfe",                     # no UTF-8
          b"\x88\x81\0\0\0\0a", b"\x88\x82\0\0\0\0\x00\x01"]  # goodbyes that are none
TEXTS = [b"{", b"[]", b"null", b"1", b'{"type":"feature_flags"}', b'{"type":"feature_flags","data":[]}',
         b'{"type":{},"data":{}}', b'{"type":"feature_flags","data":{"supports_preview_metadata":"yes"}}',
         b"[" * 100000, b'{"type":"\\ud800"}', b"\0" * 1000]


def check_frames(options):
    with fresh(options) as server:
        good = Socket(server.port, "good")
        good.message()
        for frame in FRAMES:
            web = Socket(server.port, "bad")
            try:
                web.socket.sendall(frame)
                web.socket.shutdown(socket.SHUT_WR)
                while web.socket.recv(65536):
                    pass
            except OSError:
                pass
        talk = Socket(server.port, "talks")
        for text in TEXTS:
            kind, form = (126, ">H") if len(text) < 65536 else (127, ">Q")
            length = bytes([128 | len(text)]) if len(text) < 126 else bytes([128 | kind]) + struct.pack(form, len(text))
            talk.socket.sendall(b"\x81" + length + b"\0\0\0\0" + text)
        talk.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        wait_for(lambda: talk.message()["type"] == "feature_flags", server)
        server.json("/prompt", {"prompt": cheap(1), "client_id": "good", "prompt_id": "good"})
        assert good.until_end("good")[-3]["type"] == "execution_success"
        serves(server)
    return ""


def send_large(server, path, size):
    """With its length told, then in pieces without; refused both times."""
    raw = Raw(server)
    raw.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
    assert b" 413 " in raw.receive().split(b"\r\n")[0], path
    raw = Raw(server)
    raw.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    piece, sent = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n", 0
    try:
        while sent < size:
            raw.send(piece)
            sent += 1 << 20
    except OSError:
        pass
    assert sent < size, path
    assert b" 413 " in raw.receive().split(b"\r\n")[0] or path == "/nothing", path


def check_large_body(options):
    """Refused at its length, and where it is not told, at the limit; uploads too. Nothing of it stays in use, and malloc keeps
    little of what it had."""
    with fresh(options) as server:
        serves(server)
        before, kept = memory(server), []
        for _ in range(3):
            for path in ("/prompt", "/upload/image", "/userdata/large.json", "/nothing"):
                send_large(server, path, options.body)
            time.sleep(0.5)  # the memory of the last one is given back after its answer
            kept.append(round(memory(server) - before))
        peak = memory(server, "VmHWM") - before
        assert peak < 200 and max(kept) < 100, f"peak {peak} MiB, {kept} MiB stay"
        serves(server)
    return f"peak {peak:.0f} MiB, {kept} stay"


def multipart(name, size):
    """(content type, body) of a form with a file of so many bytes."""
    content = bytes(range(256)) * (size // 256)
    head = f'--line\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    return "multipart/form-data; boundary=line", head.encode() + content + b"\r\n--line--\r\n", content


def check_large_uploads(options):
    """Four at a time, taken: they are whole, and were never in memory as a whole."""
    with fresh(options) as server:
        serves(server)
        before = memory(server)
        wrong = []

        def upload(index):
            kind, body, content = multipart(f"large{index}.png", 80 << 20)
            raw = Raw(server)
            raw.send(f"POST /upload/image HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {kind}\r\n"
                     f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            answer = raw.receive()
            with open(os.path.join(server.folder, "input", f"large{index}.png"), "rb") as f:
                if b" 200 " not in answer.split(b"\r\n")[0] or f.read() != content:
                    wrong.append(answer[:300])
        threads = [threading.Thread(target=upload, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        peak = 0
        while any(thread.is_alive() for thread in threads):
            peak = max(peak, memory(server, "RssAnon"))
            time.sleep(0.02)
        assert not wrong, wrong
        assert peak - before < 100, f"{peak - before} MiB of memory for uploads"
        time.sleep(0.5)
        kept = memory(server) - before
        assert kept < 60, f"{kept} MiB stay"
        serves(server)
    return f"peak {max(0, peak - before):.0f} MiB, {kept:.0f} stay"


def check_many_connections(options):
    """More than the server takes: those that do nothing make room, a client that asks is answered."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    count = min(options.connections, most - 200)
    with fresh(options) as server:
        serves(server)
        before = memory(server)
        raws = []
        for i in range(count):
            raws.append(Raw(server))
            if i % 3 == 0:
                raws[-1].send(b"GET /queue HTTP/1.1\r\nHost: localhost\r\n")
            if i % 500 == 0:
                server.json("/queue")
        serves(server)
        grown = memory(server) - before
        assert grown < 400, f"{grown} MiB more for {count} connections"
        for raw in raws:
            raw.socket.close()
        serves(server)
    return f"{count} connections, {grown:.0f} MiB more"


PATHS = ("/prompt", "/queue", "/history", "/interrupt", "/free", "/api/jobs/cancel", "/distorch/plan", "/settings",
         "/settings/a", "/internal/logs/subscribe", "/users")


def check_invalid_json(options):
    """Each body to each route that takes JSON, as a POST or PATCH: 200 or 4xx, never 5xx."""
    with fresh(options) as server:
        for body in BODIES:
            for path in PATHS:
                method = "PATCH" if path.startswith("/internal") else "POST"
                raw = Raw(server)
                raw.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: "
                         f"application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                answer = raw.receive()
                status = int(answer.split(b" ")[1])
                assert status < 500, (method, path, body[:200], answer[:1000])
                content = answer.partition(b"\r\n\r\n")[2]
                if status >= 400 and content:
                    json.loads(content)
        # Some are good prompts, with strange things beside them.
        wait_for(lambda: server.json("/prompt")["exec_info"]["queue_remaining"] == 0, server)
        for path in ("/history", "/queue", "/api/jobs", "/settings"):
            server.json(path)
        server.stop()
        server.start()
        server.json("/history")
        serves(server)
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--body", type=int, default=1 << 30)
    parser.add_argument("names", nargs="*")
    options = parser.parse_intermixed_args()
    checks = {name[len("check_"):]: check for name, check in globals().items() if name.startswith("check_")}
    for name in options.names or checks:
        begin = time.monotonic()
        said = checks[name](options)
        print(f"{name}: {time.monotonic() - begin:.1f} s {said}", flush=True)


main()
