"""More of a user's ways on a running distorch: the placement panel, the mask editor, a subgraph with a mistake inside, settings over
a restart. Usage: page_more.py distorch"""
import json
import pathlib
import sys
import tempfile
import urllib.request

import browsing
from page_session import SAMPLER, WORKFLOW, Session, command


def run_to_end(session):
    since = session.queue()
    session.wait_for("execution_success", since=since)
    return since


def panel(session):
    """The tab opens, is told of the run, and shows the model, its devices and links, and the time that is left."""
    session.page.get_by_test_id("distorch-placement-tab-button").click()
    shown = session.page.locator(".distorch-panel")
    shown.wait_for(timeout=10_000)
    session.page.wait_for_function("document.querySelector('.distorch-panel').innerText.includes('Nothing runs')")
    session.picture("more_1_panel_idle")
    session.set_widget(SAMPLER, "steps", 10000)
    since = session.queue()
    told = session.wait_for("distorch_placement", since=since,
                            fits=lambda data: data["models"] and data["run"] and data["run"]["value"] >= 5 and data["run"]["measured"])
    # The prompt began without a plan: it has one once it has run for a second.
    planned = session.wait_for("distorch_placement", since=since, seconds=180, fits=lambda data: data["run"] and data["run"]["prompt"])["run"]
    assert planned["prompt"]["left_s"] >= planned["left_s"] > 0, planned
    assert 0 < len(planned["prompt"]["unknown"]) < planned["prompt"]["nodes"], planned
    session.page.wait_for_timeout(1500)
    session.picture("more_2_panel_running")
    text = shown.inner_text()
    model = told["models"][0]
    assert model["model"] in text and "in use" in text, text
    assert {share["device"] for share in model["shares"]} >= {"sim:0", "sim:1", "cpu"}, model
    assert model["peak_bytes"] <= model["budget_bytes"], model
    # Blocks are aligned where they lie.
    assert abs(sum(share["bytes"] for share in model["shares"]) - model["bytes"]) < model["bytes"] / 1000, model
    for words in ("sim:0", "sim:1", "cpu", "of 10000", "a step", "left", "planned peak", "-> sim:0", "to run", "of unknown time"):
        assert words in text, f"{words!r} is not in:\n{text}"
    assert session.page.locator(".distorch-card[data-device='sim:0'] .distorch-bar > span").count() >= 2
    session.page.evaluate("app.extensionManager.command.execute('Comfy.Interrupt')")
    session.wait_for("execution_interrupted", since=since, seconds=30)
    session.wait_for("distorch_placement", since=since, fits=lambda data: data["run"] is None, seconds=30)
    session.page.wait_for_function("document.querySelector('.distorch-panel').innerText.includes('Nothing runs')")
    session.set_widget(SAMPLER, "steps", 20)
    # A closed panel asks for nothing.
    session.page.get_by_test_id("distorch-placement-tab-button").click()
    shown.wait_for(state="detached", timeout=10_000)
    session.page.wait_for_timeout(500)
    since = run_to_end(session)
    assert "distorch_placement" not in [message["type"] for message in session.messages[since:]]


def mask_editor(session, folder):
    """A picture is uploaded to a node, a mask painted over it, and the prompt uses what the editor made."""
    picture = browsing.CHECKOUT / "tests/parity/inputs/photo.png"
    session.page.evaluate("app.graph.clear()")
    node = session.page.evaluate(
        """async (bytes) => {
            const load = LiteGraph.createNode('LoadImage'), show = LiteGraph.createNode('MaskPreview') ?? LiteGraph.createNode('MaskToImage');
            load.pos = [500, 200]; show.pos = [1000, 200];
            app.graph.add(load); app.graph.add(show); load.connect(1, show, 0);
            if (show.type === 'MaskToImage') {
                const save = LiteGraph.createNode('PreviewImage'); save.pos = [1300, 200]; app.graph.add(save); show.connect(0, save, 0);
            }
            const form = new FormData();
            form.append('image', new File([new Uint8Array(bytes)], 'photo to mask.png', {type: 'image/png'}));
            const answer = await app.api.fetchApi('/upload/image', {method: 'POST', body: form});
            const widget = load.widgets.find(w => w.name === 'image');
            widget.value = (await answer.json()).name;
            widget.callback?.(widget.value);
            return load.id;
        }""", list(picture.read_bytes()))
    session.page.wait_for_function(f"app.graph.getNodeById({node}).imgs?.length > 0", timeout=20_000)
    session.page.evaluate(f"app.canvas.selectNode(app.graph.getNodeById({node})); void app.extensionManager.command.execute('Comfy.MaskEditor.OpenMaskEditor')")
    zone = session.page.get_by_test_id("pointer-zone")
    zone.wait_for(timeout=30_000)
    session.page.wait_for_timeout(2000)
    box = zone.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session.page.mouse.move(x - 60, y)
    session.page.mouse.down()
    for step in range(20):
        session.page.mouse.move(x - 60 + 6 * step, y + 2 * step)
    session.page.mouse.up()
    session.page.wait_for_timeout(500)
    session.picture("more_3_mask_editor")
    before = len(session.watch.requests)
    session.page.get_by_role("button", name="Save").first.click()
    zone.wait_for(state="detached", timeout=30_000)
    session.page.wait_for_timeout(1000)
    uploads = [request for request in session.watch.requests[before:] if "/upload/" in request[1]]
    assert len(uploads) >= 2 and all(status == 200 for _, _, status in uploads), uploads
    name = session.widget(node, "image")
    assert "clipspace" in name and "masked" in name, name
    since = run_to_end(session)
    output = session.wait_for("executed", since=since)["output"]["images"][0]
    session.page.wait_for_timeout(1000)
    session.picture("more_4_masked")
    bytes_ = session.page.evaluate(
        "(image) => app.api.fetchApi('/view?' + new URLSearchParams(image)).then(a => a.arrayBuffer()).then(b => Array.from(new Uint8Array(b)))", output)
    white = session.page.evaluate(
        """async (bytes) => {
            const picture = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
            const canvas = new OffscreenCanvas(picture.width, picture.height), context = canvas.getContext('2d');
            context.drawImage(picture, 0, 0);
            const data = context.getImageData(0, 0, picture.width, picture.height).data;
            let count = 0;
            for (let i = 0; i < data.length; i += 4) count += data[i] > 128;
            return count / (data.length / 4);
        }""", bytes_)
    assert 0.001 < white < 0.9, f"the mask covers {white} of the picture"


def subgraph(session, folder):
    """Sampler and decoder become a subgraph, which runs; a mistake inside it is shown on the node there and on its instance."""
    session.load(WORKFLOW)
    made = session.page.evaluate(
        """() => {
            const made = app.graph.convertToSubgraph(new Set([5, 6].map(id => app.graph.getNodeById(id))));
            return made.node.id;
        }""")
    assert session.page.evaluate("app.graph.nodes.length") == 6
    session.page.evaluate("app.canvas.setDirty(true, true)")
    session.page.wait_for_timeout(500)
    since = run_to_end(session)
    ran = {message["data"]["node"] for message in session.messages[since:] if message["type"] == "executing" and message["data"]["node"]}
    assert f"{made}:5" in ran and f"{made}:6" in ran, ran
    states = session.wait_for("progress_state", since=since, fits=lambda data: f"{made}:5" in data["nodes"])
    assert states["nodes"][f"{made}:5"]["display_node_id"] == f"{made}:5", states
    session.page.wait_for_timeout(1000)
    session.picture("more_5_subgraph")
    inner = f"app.graph.getNodeById({made}).subgraph.getNodeById(5)"
    set_sampler = f"(value) => {{ {inner}.widgets.find(w => w.name === 'sampler_name').value = value; }}"
    right = session.page.evaluate(f"{inner}.widgets.find(w => w.name === 'sampler_name').value")
    session.page.evaluate(set_sampler, "no such sampler")
    before = len(session.watch.faults)
    with session.page.expect_response(lambda answer: answer.url.endswith("/api/prompt")) as answer:
        session.queue()
    assert answer.value.status == 400, answer.value.status
    errors = answer.value.json()["node_errors"]
    assert list(errors) == [f"{made}:5"] and errors[f"{made}:5"]["class_type"] == "KSampler", errors
    session.page.wait_for_timeout(1500)
    assert f"{made}:5" in session.page.evaluate("app.lastNodeErrors"), "the page does not know the error"
    assert session.page.evaluate(f"app.graph.getNodeById({made}).has_errors"), "the subgraph's node is not marked"
    session.picture("more_6_mistake_inside")
    del session.watch.faults[before:]
    session.page.keyboard.press("Escape")
    session.page.evaluate(f"app.canvas.openSubgraph(app.graph.getNodeById({made}).subgraph, app.graph.getNodeById({made}))")
    session.page.wait_for_timeout(1000)
    session.picture("more_7_inside")
    assert session.page.evaluate(f"!!{inner}.has_errors"), "the node inside is not marked"
    session.page.evaluate("app.canvas.setGraph(app.graph)")
    session.page.evaluate(set_sampler, right)
    run_to_end(session)
    # Saved and loaded again it is the same.
    kept = folder / "subgraph.json"
    kept.write_text(session.page.evaluate("JSON.stringify(app.graph.serialize())"))
    session.load(kept, nodes=6)
    since = run_to_end(session)
    cached = session.wait_for("execution_cached", since=since)["nodes"]
    assert f"{made}:5" in cached, cached


SETTINGS = {"Comfy.LinkRenderMode": 0, "Comfy.Sidebar.Location": "right", "Comfy.Graph.CanvasInfo": False}


def set_settings(session):
    for name, value in SETTINGS.items():
        session.page.evaluate("([name, value]) => app.extensionManager.setting.set(name, value)", [name, value])
    session.page.wait_for_timeout(1000)


def settings_kept(session, address):
    for name, value in SETTINGS.items():
        assert session.page.evaluate("(name) => app.extensionManager.setting.get(name)", name) == value, name
    with urllib.request.urlopen(f"{address}/api/settings") as answer:
        kept = json.load(answer)
    assert all(kept[name] == value for name, value in SETTINGS.items()), kept
    # The panel works after a restart too, at the other side.
    session.page.get_by_test_id("distorch-placement-tab-button").click()
    session.page.locator(".distorch-panel").wait_for(timeout=10_000)
    session.page.wait_for_function("document.querySelector('.distorch-panel').innerText.includes('No model is loaded')")
    session.picture("more_8_restarted")


def main(program):
    chromium = browsing.needs()
    with tempfile.TemporaryDirectory() as name, browsing.browser(chromium) as browser:
        folder = pathlib.Path(name)
        with browsing.server(command(program, folder), folder) as address:
            session = Session(browser, address)
            session.load(WORKFLOW)
            panel(session)
            print("panel is fine", flush=True)
            for step in (mask_editor, subgraph):
                step(session, folder)
                print(step.__name__, "is fine", flush=True)
            set_settings(session)
            session.watch.check()
            session.page.close()
        with browsing.server(command(program, folder), folder) as address:
            session = Session(browser, address)
            settings_kept(session, address)
            session.watch.check()
            print("settings are fine")


main(*sys.argv[1:])
