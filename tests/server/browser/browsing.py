"""What the browser tests share: a server that runs as long as a test, a page that remembers its faults."""
import contextlib
import os
import pathlib
import re
import selectors
import shutil
import subprocess
import sys
import time

SKIPPED = 77
CHECKOUT = pathlib.Path(__file__).resolve().parents[3]
# What the page itself asks for and takes a 404 for, also from ComfyUI.
HARMLESS = re.compile(
    r"/user\.css|/userdata/(user\.css|comfy\.templates\.json|workflows%2F\.index\.json)|/userdata\?dir="
    r"|/templates/index_logo\.json|/templates/[^/]*\.(webp|mp3|mp4|png|jpg)")


def skip(why):
    print("skipped:", why)
    sys.exit(SKIPPED)


def needs():
    """Path of Chromium; skips where something of the set-up is missing."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        skip("there is no chromium (tools/setup_browser.sh installs it)")
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        skip("there is no playwright (tools/setup_browser.sh installs it)")
    if not (CHECKOUT / ".deps/page/index.html").exists():
        skip("the page is not installed (tools/setup.sh)")
    return chromium


@contextlib.contextmanager
def server(command, folder, seconds=60):
    """Runs the command in the folder; gives the address that it prints. Stopped at the end."""
    log = open(folder / "server.log", "ab+")
    process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    try:
        yield first_address(process, log, seconds)
    finally:
        process.stdin.close()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError("the server did not stop within 20 seconds")
        finally:
            rest = process.stdout.read() if process.poll() is not None else b""
            log.write(rest or b"")
            log.close()


def first_address(process, log, seconds):
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    text = b""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not selector.select(1):
            continue
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            break
        log.write(piece)
        text += piece
        found = re.search(rb"https?://[0-9a-z.:\[\]]+:[0-9]+", text)
        if found:
            keep_reading(process, log)
            return found[0].decode()
    raise AssertionError("the server said no address:\n" + text.decode(errors="replace"))


def keep_reading(process, log):
    """A pipe that nobody reads would stop the server."""
    import threading

    def copy():
        with contextlib.suppress(ValueError, OSError):
            while piece := os.read(process.stdout.fileno(), 65536):
                log.write(piece)
                log.flush()
    threading.Thread(target=copy, daemon=True).start()


class Watch:
    """Collects what goes wrong in a page: errors of its console and scripts, requests to our server that fail."""

    def __init__(self, page, address):
        self.address = address
        self.faults = []
        self.requests = []
        page.on("console", self.on_console)
        page.on("pageerror", lambda error: self.faults.append(f"script: {error}"))
        page.on("response", self.on_response)
        page.on("requestfailed", self.on_failed)

    def on_console(self, message):
        # A failed request is judged by on_response; other hosts are not reached in a test.
        if message.type == "error" and not re.search("Failed to load resource|Failed to fetch: 404", message.text) and not self.is_outside(message.text):
            self.faults.append(f"console: {message.text}")

    def is_outside(self, text):
        return re.search(r"ERR_(NAME_NOT_RESOLVED|INTERNET_DISCONNECTED|CONNECTION|PROXY|TUNNEL|FAILED)|api\.comfy\.org|Network Error"
                         r"|googletagmanager|status page", text)

    def on_response(self, response):
        if not response.url.startswith(self.address):
            return
        path = response.url[len(self.address):]
        self.requests.append((response.request.method, path, response.status))
        if response.status >= 400 and not (response.status == 404 and HARMLESS.search(path)):
            self.faults.append(f"{response.request.method} {path}: {response.status}")

    def on_failed(self, request):
        aborted = "ERR_ABORTED" in (request.failure or "")
        if request.url.startswith(self.address) and not aborted:
            self.faults.append(f"{request.method} {request.url}: {request.failure}")

    def check(self):
        assert not self.faults, "faults in the page:\n  " + "\n  ".join(self.faults)


@contextlib.contextmanager
def browser(chromium):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"])
        try:
            yield running
        finally:
            running.close()


def pictures():
    folder = pathlib.Path(os.environ.get("SCREENSHOTS", CHECKOUT / "build/screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
