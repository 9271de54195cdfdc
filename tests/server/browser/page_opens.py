"""The page opens from our listener: every file is found, its socket opens, nothing complains. Usage: page_opens.py page_server"""
import pathlib
import sys
import tempfile
import time

import browsing


def main(program):
    chromium = browsing.needs()
    with tempfile.TemporaryDirectory() as folder, browsing.server([program], pathlib.Path(folder)) as address, \
            browsing.browser(chromium) as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        watch = browsing.Watch(page, address)
        sockets = []
        page.on("websocket", lambda socket: sockets.append(socket.url))
        start = time.monotonic()
        page.goto(address)
        page.wait_for_selector("canvas#graph-canvas", timeout=120_000)
        page.wait_for_function("window.app && window.app.extensionManager && window.app.api.clientId", timeout=120_000)
        seconds = time.monotonic() - start
        page.wait_for_timeout(1000)
        page.screenshot(path=browsing.pictures() / "page_opens.png")
        assert any("/ws" in url for url in sockets), sockets
        files = [path for _, path, _ in watch.requests if path.startswith("/assets/")]
        assert len(files) > 50, files
        watch.check()
        print(f"the page opened in {seconds:.1f} s with {len(watch.requests)} requests")


main(*sys.argv[1:])
