"""A user's way through the page on a running distorch: open, load the demo workflow, run, change the seed, make a mistake, cancel,
save, restart. Usage: page_flow.py distorch"""
import pathlib
import subprocess
import sys
import tempfile

import browsing
from page_session import LOADER, SAMPLER, WORKFLOW, Session, command


def first_run(session):
    since = session.queue()
    session.wait_for("execution_success", since=since)
    session.wait_for("executing", since=since, fits=lambda data: data["node"] is None)
    kinds = [message["type"] for message in session.messages[since:]]
    assert kinds.count("progress_state") >= 20, kinds
    assert "executed" in kinds, kinds
    session.page.wait_for_timeout(1500)
    shown = [path for method, path, status in session.watch.requests if "/view?" in path and "type=output" in path and status == 200]
    assert shown, "the page did not ask for the picture"
    assert session.page.evaluate(f"app.graph.getNodeById(7).imgs?.length > 0 || Object.keys(app.nodeOutputs).length > 0")
    session.picture("flow_1_run")


def new_seed(session):
    session.set_widget(SAMPLER, "seed", session.widget(SAMPLER, "seed") + 1)
    since = session.queue()
    cached = session.wait_for("execution_cached", since=since)["nodes"]
    session.wait_for("execution_success", since=since)
    assert set(cached) == {"1", "2", "3", "4"}, cached
    ran = [m["data"]["node"] for m in session.messages[since:] if m["type"] == "executing" and m["data"]["node"]]
    assert list(dict.fromkeys(ran)) == ["5", "6", "7"], ran


def mistake(session):
    """The page must mark the node; what it then says in its console is about the refusal itself."""
    right = session.widget(LOADER, "ckpt_name")
    session.set_widget(LOADER, "ckpt_name", "missing.safetensors")
    before = len(session.watch.faults)
    with session.page.expect_response(lambda answer: answer.url.endswith("/api/prompt")) as answer:
        session.queue()
    assert answer.value.status == 400, answer.value.status
    session.page.wait_for_timeout(1000)
    errors = session.page.evaluate("app.lastNodeErrors")
    assert errors and str(LOADER) in errors, errors
    session.picture("flow_2_mistake")
    del session.watch.faults[before:]
    session.page.keyboard.press("Escape")
    session.set_widget(LOADER, "ckpt_name", right)


def cancel(session):
    session.set_widget(SAMPLER, "steps", 10000)
    since = session.queue()
    session.wait_for("progress", since=since, fits=lambda data: data["value"] >= 2)
    session.picture("flow_3_running")
    session.page.evaluate("app.extensionManager.command.execute('Comfy.Interrupt')")
    session.wait_for("execution_interrupted", since=since, seconds=30)
    session.wait_for("status", since=since, fits=lambda data: data["status"]["exec_info"]["queue_remaining"] == 0, seconds=30)
    session.set_widget(SAMPLER, "steps", 20)


def upload(session):
    answer = session.page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(8, 8); canvas.getContext('2d').fillRect(0, 0, 8, 8);
            const form = new FormData();
            form.append('image', new File([await canvas.convertToBlob()], 'a b.png')); form.append('type', 'input');
            const answer = await app.api.fetchApi('/upload/image', {method: 'POST', body: form});
            const info = await answer.json();
            const shown = await app.api.fetchApi('/view?' + new URLSearchParams({filename: info.name, type: info.type, subfolder: info.subfolder}));
            return [answer.status, info.name, shown.status, shown.headers.get('content-type')];
        }""")
    assert answer == [200, "a b.png", 200, "image/png"], answer


def save(session):
    session.page.evaluate("void app.extensionManager.command.execute('Comfy.SaveWorkflowAs')")
    box = session.page.locator("[role=dialog] input").first
    box.wait_for(timeout=10_000)
    box.fill("kept")
    with session.page.expect_response(lambda answer: "/api/userdata/workflows%2Fkept" in answer.url and answer.request.method == "POST") as answer:
        box.press("Enter")
    assert answer.value.status == 200, answer.value.status
    session.picture("flow_4_saved")
    session.page.evaluate("app.extensionManager.setting.set('Comfy.LinkRenderMode', 0)")
    session.page.wait_for_timeout(500)


def search(session):
    """Of two saved workflows the one whose name was asked for is listed, and opens."""
    text = WORKFLOW.read_text()
    for name in ("blue whale", "red fox"):
        status = session.page.evaluate(
            "([name, body]) => app.api.storeUserData(`workflows/${name}.json`, body, {stringify: false}).then(answer => answer.status)",
            [name, text])
        assert status == 200, status
    tab = session.page.get_by_test_id("workflows-tab-button")
    tab.click()
    session.page.get_by_test_id("workflows-refresh-button").click()
    session.page.get_by_test_id("tree-node-root/red fox.json").wait_for(timeout=10_000)
    session.page.get_by_placeholder("Search Workflows").fill("whale")
    session.page.get_by_test_id("tree-node-root/red fox.json").wait_for(state="detached", timeout=10_000)
    session.picture("flow_6_search")
    session.page.get_by_text("blue whale").first.click()
    session.page.wait_for_function("app.extensionManager.workflow.activeWorkflow.filename === 'blue whale'", timeout=10_000)
    session.page.wait_for_function("app.graph.nodes.length === 7", timeout=10_000)
    tab.click()


def gallery(session):
    """The pictures that were made are shown, from the server's own small versions of them."""
    tab = session.page.get_by_test_id("assets-tab-button")
    tab.click()
    card = session.page.get_by_text("demo_00001_").first
    card.wait_for(timeout=10_000)
    session.page.wait_for_function(
        """[...document.querySelectorAll('img')].some(image => image.src.includes('filename=demo_') && image.complete && image.naturalWidth > 0)""",
        timeout=10_000)
    session.picture("flow_7_gallery")
    tab.click()


def templates(session):
    """Those that can run here are listed, and the page shows them."""
    listed = session.page.evaluate("fetch('/templates/index.json').then(answer => answer.json())")
    names = [entry["name"] for category in listed for entry in category["templates"]]
    assert names, "no template can run"
    session.page.evaluate("void app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    session.page.wait_for_timeout(3000)
    session.picture("flow_5_templates")
    session.page.keyboard.press("Escape")


def restarted(session):
    assert session.page.evaluate("app.extensionManager.setting.get('Comfy.LinkRenderMode')") == 0
    listed = session.page.evaluate(
        "app.api.fetchApi('/userdata?dir=workflows&recurse=true&split=false&full_info=true').then(answer => answer.json())")
    assert any(entry["path"].startswith("kept") for entry in listed), listed
    done = session.page.evaluate("app.api.fetchApi('/jobs?status=completed,failed,cancelled&limit=200&offset=0').then(answer => answer.json())")
    assert len(done["jobs"]) >= 3, done


def main(program):
    chromium = browsing.needs()
    if subprocess.run([program, "serve", "--help"], capture_output=True).returncode != 0:
        browsing.skip("this distorch has no 'serve'")
    with tempfile.TemporaryDirectory() as name, browsing.browser(chromium) as browser:
        folder = pathlib.Path(name)
        with browsing.server(command(program, folder), folder) as address:
            session = Session(browser, address)
            session.picture("flow_0_open")
            session.load(WORKFLOW)
            for step in (first_run, new_seed, mistake, cancel, upload, save, search, gallery, templates):
                step(session)
                print(step.__name__, "is fine", flush=True)
            session.watch.check()
            session.page.close()
        assert list((folder / "output").glob("demo*.png")), "no picture was written"
        with browsing.server(command(program, folder), folder) as address:
            session = Session(browser, address)
            restarted(session)
            session.watch.check()
            print("restarted is fine")


main(*sys.argv[1:])
