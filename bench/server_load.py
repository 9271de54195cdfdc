"""`distorch serve` under load, and ComfyUI's own server beside it where there is one: prompts of many clients, memory over many
prompts, /object_info, the page in a browser, idle memory, start-up, a thousand web sockets beside a run with previews.

    python bench/server_load.py --ours build/release/bin/distorch --out build/bench
        [--peer PYTHON --peer-main COMFYUI/main.py]   the server beside it (same page, same prompts)
        [--prompts 10000] [--rounds 5] [--only NAME]

Everything is on this machine: the clients' own time counts, for both servers alike. With a Python that has playwright
(.deps/browser/bin/python) the page is loaded in Chromium; else its files are fetched as a browser would fetch them.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(CHECKOUT, "tests", "serve"))
from client import Server, Socket, wait_for  # noqa: E402  pylint: disable=wrong-import-position

PAGE = os.path.join(CHECKOUT, ".deps", "page")
PAGE_REQUESTS = ["/api/users", "/api/settings", "/api/features", "/api/system_stats", "/api/i18n", "/api/extensions", "/api/object_info",
                 "/api/userdata?dir=workflows&recurse=true&split=false&full_info=true", "/user.css"]


class Results:
    def __init__(self, folder):
        self.path = os.path.join(folder, "server_load.json")
        self.rows = []
        os.makedirs(folder, exist_ok=True)

    def add(self, name, ours, peer, unit, **more):
        ratio = ours / peer if peer else None
        self.rows.append({"name": name, "ours": ours, "unit": unit, "load": os.getloadavg()[0], "peer": peer, "ratio": ratio, **more})
        shown = "-" if peer is None else f"{peer:.4g}"
        print(f"{name:<66}{ours:>10.4g}{shown:>11}{'-' if ratio is None else f'{ratio:.4f}':>9}  {unit}", flush=True)
        with open(self.path, "w", encoding="utf-8") as f:
            json.dump(self.rows, f, indent=1)


class Peer(Server):
    """ComfyUI's server in a folder of its own, with our page."""

    def __init__(self, python, main, folder):
        super().__init__(python, folder)
        self.main = main
        for name in ("custom_nodes", "temp"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)

    def start(self):
        self.starts += 1
        self.log = os.path.join(self.folder, f"log{self.starts}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = [self.program, self.main, "--cpu", "--base-directory", self.folder, "--port", str(self.port), "--disable-auto-launch",
                 "--disable-all-custom-nodes", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        if os.path.exists(os.path.join(PAGE, "index.html")):
            words += ["--front-end-root", PAGE]
        with open(self.log, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(words, cwd=self.folder, env=dict(os.environ, CUDA_VISIBLE_DEVICES="", HOME=self.folder),
                                            stdin=subprocess.DEVNULL, stdout=errors, stderr=subprocess.STDOUT)
        wait_for(lambda: answers(self.port), self, 180)
        return self


def answers(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/prompt")
        return connection.getresponse().read() is not None
    except OSError:
        return False


def memory(server, key="VmRSS"):
    """In bytes."""
    with open(f"/proc/{server.process.pid}/status", encoding="utf-8") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(key + ":")) * 1024


def processor(server):
    """Seconds of the processor that the server took."""
    with open(f"/proc/{server.process.pid}/stat", encoding="utf-8") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, options):
        self.options = options
        self.results = Results(options.out)
        self.folders = []

    def ours(self):
        self.folders.append(tempfile.TemporaryDirectory(prefix="distorch_load_"))
        return Server(self.options.ours, self.folders[-1].name)

    def peer(self):
        self.folders.append(tempfile.TemporaryDirectory(prefix="distorch_load_"))
        return Peer(self.options.peer, self.options.peer_main, self.folders[-1].name)

    def both(self, measure, rounds=1):
        """Medians of `measure(server)` for ours and the peer, in turn; None where there is no peer."""
        makers = [self.ours] + ([self.peer] if self.options.peer else [])
        values = [[], []]
        servers = [make() for make in makers]
        for server in servers:
            server.start()
        try:
            for _ in range(rounds):
                for i, server in enumerate(servers):
                    values[i].append(measure(server))
        finally:
            for server in servers:
                server.kill()
        return [statistics.median(v) if v else None for v in values]

    # Start-up: from the process to the first answer; memory of a server that has answered that and nothing else.
    def start_up(self):
        def one(make):
            server = make()
            begin = time.monotonic()
            threading.Thread(target=server.start, daemon=True).start()
            while not (server.process and server.port and answers(server.port)):
                time.sleep(0.002)
                assert time.monotonic() - begin < 180
            took, work = time.monotonic() - begin, processor(server)
            time.sleep(1)
            rss = memory(server)
            server.kill()
            return took, work, rss

        def loading():
            """The program and its libraries alone: seconds, and seconds of a processor."""
            before, begin = os.times(), time.monotonic()
            subprocess.run([self.options.ours, "--version"], stdout=subprocess.DEVNULL, check=True)
            after = os.times()
            return (time.monotonic() - begin,
                    after.children_user + after.children_system - before.children_user - before.children_system)
        pairs = [(one(self.ours), loading()) for _ in range(self.options.rounds)]
        took, work, rss = (statistics.median(ours[i] for ours, _ in pairs) for i in range(3))
        bare, bare_work = (statistics.median(alone[i] for _, alone in pairs) for i in range(2))
        peer = one(self.peer) if self.options.peer else None
        self.results.add("start-up: process to the first answer, limit 0.5 s", took, 0.5, "s")
        self.results.add("start-up beside loading the program (--version)", took, bare, "s")
        self.results.add("seconds of a processor for it, beside loading the program", work, bare_work, "s")
        self.results.add("idle memory, limit 200 MB", rss / 1e6, 200, "MB")
        if peer:
            self.results.add("start-up beside ComfyUI's server", took, peer[0], "s")
            self.results.add("idle memory beside ComfyUI's server", rss / 1e6, peer[2] / 1e6, "MB")

    # 200 prompts by 20 clients, each with a web socket on which it waits for its prompts.
    def many_clients(self):
        begin_seed = iter(range(0, 1 << 30, 1 << 16))

        def one(server):
            seed = next(begin_seed)
            names = [[str(uuid.uuid4()) for _ in range(10)] for _ in range(20)]
            webs = [Socket(server.port, f"c{seed}_{i}") for i in range(20)]
            bodies = {name: json.dumps({"prompt": counting(seed + i), "client_id": f"c{seed}_{client}", "prompt_id": name}).encode()
                      for client in range(20) for i, name in enumerate(names[client], client * 10)}

            def run(client):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
                left = set(names[client])
                for name in names[client]:
                    connection.request("POST", "/prompt", bodies[name], {"Content-Type": "application/json"})
                    answer = json.loads(connection.getresponse().read())
                    assert answer.get("prompt_id") == name, answer
                while left:
                    kind, payload = webs[client].frame()
                    if kind == 1 and b'"execution_success"' in payload:
                        left.discard(json.loads(payload)["data"]["prompt_id"])
            spent = processor(server)
            begin = time.monotonic()
            with concurrent.futures.ThreadPoolExecutor(20) as pool:
                list(pool.map(run, range(20)))
            self.processor_ms = (processor(server) - spent) / 200 * 1e3
            return (time.monotonic() - begin) / 200 * 1e3
        ours, peer = self.both(one, self.options.rounds)
        self.results.add("200 prompts of 20 clients, clients with it, limit 3 ms a prompt", ours, 3, "ms")
        if peer:
            self.results.add("the same beside ComfyUI's server", ours, peer, "ms")

    # The memory after a tenth of the prompts and after all of them.
    def memory_over_prompts(self):
        server = self.ours().start()
        try:
            count = self.options.prompts
            readings = []
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
            begin = time.monotonic()
            for i in range(count):
                connection.request("POST", "/prompt", json.dumps({"prompt": counting(i)}).encode(), {"Content-Type": "application/json"})
                assert connection.getresponse().read()
                if (i + 1) % max(1, count // 10) == 0:
                    wait_for(lambda: server.json("/prompt")["exec_info"]["queue_remaining"] == 0, server, 600)
                    readings.append(memory(server))
            self.results.add(f"memory after {count} prompts beside that after a tenth of them", readings[-1] / 1e6, readings[0] / 1e6, "MB",
                             readings=readings, seconds=time.monotonic() - begin)
        finally:
            server.kill()

    def object_info(self):
        def one(server):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
            times = []
            for _ in range(21):
                begin = time.monotonic()
                connection.request("GET", "/object_info")
                connection.getresponse().read()
                times.append(time.monotonic() - begin)
            self.first = times[0] * 1e3
            return statistics.median(times[1:]) * 1e3
        ours, peer = self.both(one)
        self.results.add("GET /object_info, limit 20 ms", ours, 20, "ms")
        if peer:
            self.results.add("GET /object_info beside ComfyUI's server", ours, peer, "ms")

    # The page, from its address to a canvas that is ready, each time without a cache.
    def page_load(self):
        if not os.path.exists(os.path.join(PAGE, "index.html")):
            print("page: left out, it is not installed (tools/setup.sh)")
            return
        try:
            import playwright.sync_api as playwright
        except ImportError:
            playwright = None
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        if playwright and chromium:
            with playwright.sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])

                def in_browser(server):
                    context = browser.new_context()
                    page = context.new_page()
                    begin = time.monotonic()
                    page.goto(server.url(), wait_until="commit")
                    page.wait_for_function("window.app && app.extensionManager && app.api.clientId && app.graph && "
                                           "Object.keys(LiteGraph.registered_node_types).length > 50", timeout=180_000)
                    took = time.monotonic() - begin
                    context.close()
                    return took
                ours, peer = self.both(in_browser, self.options.rounds)
                browser.close()
            self.results.add("the page in Chromium, to a canvas that is ready", ours, peer, "s")
        ours, peer = self.both(fetch_page, self.options.rounds)
        self.results.add("files and requests of the page's start over 6 connections", ours * 1e3, peer and peer * 1e3, "ms")

    # Seconds a step of a run with previews, alone and with a thousand sockets open that hear every message to all.
    def thousand_sockets(self):
        server = self.ours().start()
        try:
            run_demo(server, 20, 1, None)
            pairs = []
            for i in range(self.options.rounds):
                alone = run_demo(server, 200, 2 * i, Socket(server.port, "owner"))
                crowd = Crowd(server.port, 1000)
                with_all = run_demo(server, 200, 2 * i + 1, Socket(server.port, "owner"))
                crowd.close()
                pairs.append((with_all, alone))
            ratios = [a / b for a, b in pairs]
            best = min(a for a, _ in pairs), min(b for _, b in pairs)
            self.results.add("a step with 1000 sockets beside one with one, limit 1.01", best[0] * 1e3, best[1] * 1e3, "ms",
                             median_of_ratios=statistics.median(ratios))
        finally:
            server.kill()


def counting(seed):
    """A prompt of two cheap nodes, another one for each seed."""
    return {"1": {"class_type": "PrimitiveInt", "inputs": {"value": seed}},
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}


def run_demo(server, steps, seed, web):
    """Seconds a step of the demo model, as the server counts them."""
    with open(os.path.join(CHECKOUT, "tests", "cli", "prompts", "picture.json"), encoding="utf-8") as f:
        prompt = json.load(f)
    prompt["5"]["inputs"].update(steps=steps, seed=1000 + seed)
    before = steps_of(server)
    body = {"prompt": prompt, "prompt_id": f"demo{seed}_{steps}"}
    if web:
        body["client_id"] = "owner"
        web.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
    server.json("/prompt", body)
    previews = 0
    if web:
        previews = sum(message["type"] == "#4" for message in web.until_end(body["prompt_id"]))
        assert previews > 10, f"{previews} previews of {steps} steps"
        web.socket.close()
    wait_for(lambda: server.json("/prompt")["exec_info"]["queue_remaining"] == 0, server)
    after = steps_of(server)
    return (after[1] - before[1]) / (after[0] - before[0])


def steps_of(server):
    text = server.ask("/metrics")[1]
    return [float(re.search(rf"^distorch_{name} (\S+)$", text, re.M).group(1)) for name in ("steps_total", "step_seconds_total")]


class Crowd:
    """So many open web sockets in a process of their own that reads what comes."""

    def __init__(self, port, count):
        self.process = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--crowd", f"{port},{count}"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"open\n"

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def be_a_crowd(port, count):
    import selectors
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    selector = selectors.DefaultSelector()
    sockets = [Socket(port, f"crowd{i}") for i in range(count)]
    for web in sockets:
        web.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        selector.register(web.socket, selectors.EVENT_READ)
    selector.register(sys.stdin.buffer, selectors.EVENT_READ)
    print("open", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin.buffer:
                return
            key.fileobj.recv(65536)


def fetch_page(server):
    names = sorted(os.path.relpath(os.path.join(folder, name), PAGE) for folder, _, files in os.walk(os.path.join(PAGE, "assets"))
                   for name in files if name.endswith((".js", ".css")))
    # As many as a page asks for at its start.
    paths = ["/", *("/" + name for name in names[:290]), *PAGE_REQUESTS]

    def fetch(part):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for path in part:
            connection.request("GET", path, headers={"Accept-Encoding": "gzip, deflate, br"})
            connection.getresponse().read()
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(fetch, [paths[i::6] for i in range(6)]))
    return time.monotonic() - begin


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", type=os.path.abspath)
    parser.add_argument("--out", default="build/bench")
    parser.add_argument("--peer")
    parser.add_argument("--peer-main", type=os.path.abspath)
    parser.add_argument("--prompts", type=int, default=10000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only")
    parser.add_argument("--crowd")
    options = parser.parse_args()
    if options.crowd:
        return be_a_crowd(*map(int, options.crowd.split(",")))
    print(f"{'':<66}{'ours':>10}{'peer':>11}{'ratio':>9}  unit")
    bench = Bench(options)
    for name in ("start_up", "many_clients", "object_info", "memory_over_prompts", "thousand_sockets", "page_load"):
        if options.only in (None, name):
            getattr(bench, name)()
    print("written to", bench.results.path)
    return None


main()
