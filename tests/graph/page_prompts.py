#!/usr/bin/env python3
"""Converts workflows by the official page itself: what ui_to_api is held against. Run by hand.

    page_prompts.py --page STATIC --object-info INFO.json --out FOLDER WORKFLOW.json...

STATIC is the folder `comfyui_frontend_package/static` of that PyPI package, INFO.json an answer of
GET /object_info. Each WORKFLOW.json becomes FOLDER/WORKFLOW.json: {"api": prompt} or {"error": text}.
Needs a Chromium in PATH and, from PyPI, playwright and aiohttp. Everything stays on the loopback.
"""
import argparse
import asyncio
import json
import pathlib
import shutil

from aiohttp import web
from playwright.async_api import async_playwright

# The least that the page asks of a server before it can load a graph.
SYSTEM = {"system": {"os": "posix", "comfyui_version": "0.33.0", "python_version": "", "pytorch_version": "",
                     "embedded_python": False, "argv": [], "ram_total": 0, "ram_free": 0}, "devices": []}
ANSWERS = {
    "users": {"storage": "server", "migrated": True},
    "settings": {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingNodesWarning": False,
                 "Comfy.Workflow.ShowMissingModelsWarning": False, "Comfy.Workflow.Persist": False},
    "features": {}, "system_stats": SYSTEM, "i18n": {}, "extensions": [], "embeddings": [],
    "jobs": {"jobs": [], "pagination": {"offset": 0, "limit": 200, "total": 0, "has_more": False}},
    "node_replacements": {}, "global_subgraphs": {}, "experiment/models": [], "workflow_templates": {},
    "queue": {"queue_running": [], "queue_pending": []}, "history": {}, "prompt": {"exec_info": {"queue_remaining": 0}},
}

CONVERT = """async (workflow) => {
  const app = window.app ?? window.comfyAPI.app.app;
  try {
    await app.loadGraphData(workflow, true, false);
  } catch (error) {  // by then the graph is there, only its tab cannot be opened
    if (error.name !== "DataCloneError") throw error;
  }
  const made = await app.graphToPrompt();
  return made.output;
}"""


def server(static, object_info):
    async def socket(request):
        channel = web.WebSocketResponse()
        await channel.prepare(request)
        await channel.send_json({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "x"}})
        async for _ in channel:
            pass
        return channel

    async def api(request):
        path = request.match_info["path"]
        if path == "object_info":
            return web.Response(body=object_info, content_type="application/json")
        if path in ANSWERS:
            return web.json_response(ANSWERS[path])
        if request.method in ("POST", "DELETE"):
            return web.json_response({})
        return web.Response(status=404, text="")

    async def page(request):
        file = (static / (request.match_info["path"] or "index.html")).resolve()
        if not file.is_relative_to(static) or not file.is_file():
            return web.Response(status=404, text="")
        return web.FileResponse(file)

    app = web.Application(client_max_size=1 << 26)
    app.router.add_get("/ws", socket)
    app.router.add_route("*", "/api/{path:.*}", api)
    app.router.add_route("*", "/internal/{path:.*}", api)
    app.router.add_get("/{path:.*}", page)
    return app


async def open_page(browser, address, types):
    tab = await browser.new_page()
    await tab.goto(address)
    await tab.wait_for_function("types => (window.app ?? window.comfyAPI?.app?.app)?.graph && window.LiteGraph &&"
                                " Object.keys(window.LiteGraph.registered_node_types).length >= types",
                                arg=types, timeout=60_000)
    await tab.wait_for_timeout(2000)
    return tab


async def convert_all(arguments):
    static = arguments.page.resolve()
    object_info = arguments.object_info.read_bytes()
    types = len(json.loads(object_info))
    runner = web.AppRunner(server(static, object_info))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = "http://127.0.0.1:%d/" % runner.addresses[0][1]
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    arguments.out.mkdir(parents=True, exist_ok=True)
    async with async_playwright() as tools:
        browser = await tools.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = await open_page(browser, address, types)
        for number, file in enumerate(arguments.workflows):
            target = arguments.out / file.name
            if target.exists():
                continue
            try:
                prompt = await asyncio.wait_for(tab.evaluate(CONVERT, json.loads(file.read_text())), 60)
                made = {"api": prompt}
            except Exception as error:  # whatever the page throws is the answer
                made = {"error": str(error)[:500]}
                await tab.close()
                tab = await open_page(browser, address, types)
            target.write_text(json.dumps(made))
            print(f"{number + 1}/{len(arguments.workflows)} {file.name}{' FAILED' if 'error' in made else ''}", flush=True)
        await browser.close()
    await runner.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=pathlib.Path, required=True)
    parser.add_argument("--object-info", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("workflows", type=pathlib.Path, nargs="+")
    asyncio.run(convert_all(parser.parse_args()))


if __name__ == "__main__":
    main()
