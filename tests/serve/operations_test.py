"""Operations: HTTPS and a web socket over it with a key pair of our own, logs as JSON, GET /metrics, and what packaging/
promises: options that exist, units that systemd takes, libraries that the program needs.

    python operations_test.py PROGRAM
"""
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

from client import CHECKOUT, Server, Socket, wait_for

PACKAGING = os.path.join(CHECKOUT, "packaging")


def cheap(seed):
    return {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": seed}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "cheap"}}}


class TlsServer(Server):
    def url(self):
        return f"https://localhost:{self.port}"

    def trusted(self):
        return ssl.create_default_context(cafile=os.path.join(self.folder, "certificate.pem"))

    def ask(self, path, body=None, headers=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url() + path, data=data, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60, context=self.trusted()) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read().decode()


def check_tls(program):
    """A client that trusts the certificate works as without TLS; one that does not is refused by itself."""
    if not shutil.which("openssl"):
        print("tls: left out, there is no openssl to make a key pair")
        return
    with tempfile.TemporaryDirectory(prefix="distorch_tls_") as folder:
        key, certificate = os.path.join(folder, "key.pem"), os.path.join(folder, "certificate.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                        "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key,
                        "-out", certificate], check=True, capture_output=True)
        server = TlsServer(program, folder, "--tls-keyfile", key, "--tls-certfile", certificate, "--auth-token", "secret")
        server.start()
        try:
            shown = {"Authorization": "Bearer secret"}
            assert server.ask("/queue")[0] == 401
            assert server.ask("/queue", headers=shown)[0] == 200

            def over_tls(plain):
                return server.trusted().wrap_socket(plain, server_hostname="localhost")

            web = Socket(server.port, "tls&token=secret", over_tls)
            assert web.message()["type"] == "status"
            status, text = server.ask("/prompt", {"prompt": cheap(1), "client_id": "tls", "prompt_id": "p"}, shown)
            assert status == 200, text
            types = [message["type"] for message in web.until_end("p")]
            assert "executed" in types and "execution_success" in types, types
            status, answer = server.ask("/view?filename=cheap_00001_.png", headers={**shown, "Range": "bytes=1-3"})
            assert (status, answer) == (206, "PNG")
            try:
                urllib.request.urlopen(server.url() + "/health", timeout=60)
                raise AssertionError("a certificate of nobody was trusted")
            except urllib.error.URLError as error:
                assert isinstance(error.reason, ssl.SSLError), error
            try:
                urllib.request.urlopen(server.url().replace("https", "http") + "/health", timeout=60)
                raise AssertionError("plain HTTP was answered on the port of HTTPS")
            except (OSError, urllib.error.URLError):
                pass
            assert server.ask("/health")[0] == 200
        finally:
            server.kill()


def check_logs(program):
    """Every line is one object with a time in UTC, a level and a message, also what is odd in a message."""
    with tempfile.TemporaryDirectory(prefix="distorch_logs_") as folder:
        server = Server(program, folder, "--log-format", "json").start()
        try:
            server.json("/prompt", {"prompt": cheap(1), "prompt_id": 'quote " line\n\u00e9'})
            server.ask("/prompt", {"prompt": {"1": {"class_type": "No\"Such\nNode", "inputs": {}}}})
            wait_for(lambda: server.json("/history"), server)
            assert server.stop() == 0
            lines = [json.loads(line) for line in server.said().splitlines()]
            for line in lines:
                assert list(line) == ["time", "level", "message"], line
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]), line
                assert line["level"] in ("debug", "info", "warning", "error"), line
            said = [line["message"] for line in lines]
            assert any(message.startswith("serving at http://127.0.0.1:") for message in said), said
            assert any(message.startswith('prompt quote " line\n\u00e9 completed') for message in said), said
            assert any("No\"Such\nNode" in message for message in said), said
            assert any(message.startswith("stopping") for message in said), said
        finally:
            server.kill()


def check_metrics(program):
    """The text is what Prometheus takes: every sample has its type said before, names and values are well formed."""
    with tempfile.TemporaryDirectory(prefix="distorch_metrics_") as folder:
        server = Server(program, folder).start()
        try:
            for name in ("a", "b"):
                server.json("/prompt", {"prompt": cheap(1), "prompt_id": name})
            wait_for(lambda: len(server.json("/history")) == 2, server)
            status, text = server.ask("/metrics")
            assert status == 200 and text.endswith("\n")
            types, samples = {}, {}
            for line in text.splitlines():
                if line.startswith("# TYPE "):
                    _, _, name, kind = line.split(" ")
                    assert kind in ("counter", "gauge") and name not in types, line
                    types[name] = kind
                elif not line.startswith("# HELP "):
                    match = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"\n]*"(?:,[a-z]+="[^"\n]*")*\})? (\S+)', line)
                    assert match and match.group(1) in types, line
                    assert float(match.group(3)) >= 0, line
                    samples[match.group(1) + (match.group(2) or "")] = float(match.group(3))
            assert all((kind == "counter") == name.endswith("_total") for name, kind in types.items()), types
            assert samples['distorch_prompts_ended_total{outcome="completed"}'] == 2, samples
            assert samples['distorch_queue_prompts{state="waiting"}'] == 0
            # The second prompt is the same: nothing of it is computed again.
            assert samples["distorch_nodes_run_total"] == 2 and samples["distorch_nodes_cached_total"] == 2, samples
        finally:
            server.kill()


def units():
    for where in ("systemd", "systemd/user"):
        yield os.path.join(PACKAGING, where, "distorch.service")


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def check_packaging(program):
    help_text = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--[a-z0-9-]+", help_text))
    texts = [re.search(r"ExecStart=.*?(?<!\\)\n", read(unit), re.S).group(0) for unit in units()]
    texts.append(re.search(r"^CMD \[.*?\]", read(os.path.join(PACKAGING, "container/Containerfile")), re.S | re.M).group(0))
    texts += re.findall(r"DISTORCH_OPTIONS=.*", read(os.path.join(PACKAGING, "systemd/distorch.conf")))
    for text in texts:
        unknown = [option for option in re.findall(r"--[a-z0-9-]+", text) if option not in known]
        assert not unknown, f"{unknown} are no options of distorch serve: {text}"
    for path in re.findall(r"/opt/distorch/(\S+)", "".join(read(unit) for unit in units())):
        assert path.startswith("build/release/bin/") or os.path.exists(os.path.join(CHECKOUT, path)), path
    assert "DISTORCH_AUTH_TOKEN" in help_text


def check_units(program):
    """systemd's own opinion, of copies that name this program; and that little is left open to attack."""
    if not shutil.which("systemd-analyze"):
        print("units: left out, there is no systemd-analyze")
        return
    for unit in units():
        with tempfile.TemporaryDirectory(prefix="distorch_unit_") as folder:
            copy = os.path.join(folder, "distorch.service")
            with open(copy, "w", encoding="utf-8") as f:
                f.write(re.sub(r"(?<=ExecStart=)\S+", program, read(unit)))
            user = ["--user"] if "/user/" in unit else []
            done = subprocess.run(["systemd-analyze", *user, "--man=no", "--recursive-errors=no", "verify", copy],
                                  capture_output=True, text=True, check=False,
                                  env=dict(os.environ, XDG_RUNTIME_DIR=folder, HOME=folder))
            said = [line for line in done.stderr.splitlines() if "distorch" in line]
            assert not said, f"{unit}: {said}"
            if user:
                continue
            done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=30", copy], capture_output=True,
                                  text=True, check=False)
            assert done.returncode == 0 or "Unknown" in done.stderr or "unrecognized" in done.stderr, done.stdout + done.stderr


def check_container(program):
    """On Debian 12, whose packages it names: what the program is linked with is installed in the second stage."""
    release = read("/etc/os-release") if os.path.exists("/etc/os-release") else ""
    if "VERSION_ID=\"12\"" not in release or not shutil.which("dpkg-query") or not shutil.which("readelf"):
        print("container: left out, this is no Debian 12")
        return
    stage = read(os.path.join(PACKAGING, "container/Containerfile")).rpartition("FROM ")[2]
    installed = set(re.search(r"install -y (.*?)&&", stage, re.S).group(1).replace("\\", " ").split())
    needed = re.findall(r"NEEDED.*\[(.*)\]", subprocess.run(["readelf", "-d", program], capture_output=True, text=True,
                                                            check=True).stdout)
    paths = dict(re.findall(r"(\S+) => (/\S+)", subprocess.run(["ldd", program], capture_output=True, text=True,
                                                               check=True).stdout))
    for library in needed:
        # libtorch comes along; libc is in every image; a sanitizer's library is not for images.
        if library.startswith(("libtorch", "libc10", "libc.so", "libm.so", "libasan", "libtsan", "libubsan")):
            continue
        found = subprocess.run(["dpkg-query", "-S", os.path.realpath(paths[library])], capture_output=True, text=True, check=False)
        package = found.stdout.partition(":")[0]
        assert not package or package in installed or package == "libgcc-s1", f"{library} is in {package}, which the image lacks"


def main():
    program = os.path.abspath(sys.argv[1])
    for check in (check_packaging, check_units, check_container, check_tls, check_logs, check_metrics):
        check(program)


main()
