"""A page on a running distorch, as the browser tests use it: what its socket said, its widgets, its queue button."""
import json
import time

import browsing

WORKFLOW = browsing.CHECKOUT / "assets/demo/workflow.json"
SAMPLER, LOADER = 5, 1


def command(program, folder):
    """Two accelerators are simulated, as in tools/demo.sh: the test is the same on every machine."""
    return [program, "serve", "--listen", "127.0.0.1", "--port", "0", "--models", str(browsing.CHECKOUT / "assets/demo/models"),
            "--output", str(folder / "output"), "--rig", str(browsing.CHECKOUT / "rigs/demo.yaml"),
            "--device-map", "cuda:0=sim:0", "--device-map", "cuda:1=sim:1"]


class Session:
    """One open page and what its socket said."""

    def __init__(self, browser, address):
        self.page = browser.new_page(viewport={"width": 1400, "height": 900})
        self.watch = browsing.Watch(self.page, address)
        self.messages = []
        self.binaries = 0
        self.page.on("websocket", self.on_socket)
        self.page.goto(address)
        self.page.wait_for_function(
            "window.app && app.extensionManager && app.api.clientId && app.graph && Object.keys(LiteGraph.registered_node_types).length > 50",
            timeout=120_000)
        self.page.wait_for_timeout(2000)
        # A user's first page opens the template browser by itself.
        self.page.keyboard.press("Escape")
        self.page.wait_for_timeout(500)

    def on_socket(self, socket):
        def received(payload):
            if isinstance(payload, bytes):
                self.binaries += 1
            else:
                self.messages.append(json.loads(payload))
        socket.on("framereceived", received)

    def wait_for(self, kind, seconds=120, since=0, fits=lambda data: True):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for message in self.messages[since:]:
                if message["type"] == kind and fits(message["data"]):
                    return message["data"]
            self.page.wait_for_timeout(50)
        raise AssertionError(f"no '{kind}' came within {seconds} s; came: {[m['type'] for m in self.messages[since:]]}")

    def load(self, workflow, nodes=7):
        self.page.set_input_files("#comfy-file-input", str(workflow))
        self.page.wait_for_function(f"app.graph.nodes.length === {nodes}", timeout=30_000)

    def set_widget(self, node, name, value):
        self.page.evaluate(
            """([id, name, value]) => {
                app.graph.getNodeById(id).widgets.find(w => w.name === name).value = value;
                app.graph.setDirtyCanvas(true, true);
            }""", [node, name, value])

    def widget(self, node, name):
        return self.page.evaluate("([id, name]) => app.graph.getNodeById(id).widgets.find(w => w.name === name).value", [node, name])

    def queue(self):
        """Presses the page's button; gives the place in the messages where the run begins."""
        since = len(self.messages)
        self.page.get_by_test_id("queue-button").first.click()
        return since

    def picture(self, name):
        self.page.screenshot(path=browsing.pictures() / f"{name}.png")
