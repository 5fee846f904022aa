"""A headless Chromium, driven over its own debugging protocol: open a page, wait for what it shows, save a picture."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = f"none of {', '.join(NAMES)} is on this machine's PATH: `apt-get install chromium`"

_SECONDS = 300.0  # for a browser to come up, and for a page to show what it is waited for


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser() -> Iterator[str]:
    """Start a browser of its own profile; the address of its debugging port."""
    program = find_browser()
    assert program is not None, MISSING
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
        options += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={home}", "--remote-allow-origins=*", "about:blank"]
        with open(Path(home) / "log", "wb") as log:
            process = subprocess.Popen([program, *options], stdout=log, stderr=log, env={**os.environ, "HOME": home})
        try:
            port = Path(home) / "DevToolsActivePort"
            deadline = time.monotonic() + _SECONDS
            while not (port.is_file() and port.read_text().strip()):
                log_text = (Path(home) / "log").read_text(errors="replace")
                up = process.poll() is None and time.monotonic() < deadline
                assert up, f"no browser came up:\n{log_text}"
                time.sleep(0.05)
            yield f"127.0.0.1:{port.read_text().split()[0]}"
        finally:
            process.kill()
            process.wait()


class Page:
    """One tab; use it as a context.

    Attributes:
        requests: the addresses that it asked for, data and blob addresses left out.
        complaints: errors and warnings on its console.
    """

    def __init__(self, debugger: str, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        request = urllib.request.Request(f"http://{debugger}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            about = json.load(answer)
        self._wire: ClientConnection = connect(
            about["webSocketDebuggerUrl"], max_size=None, proxy=None, open_timeout=_SECONDS, ping_interval=None
        )
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log", "Inspector"):
            self.call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ConnectionClosed):
            self.call("Page.close")
        self._wire.close()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Give one command of the protocol and take its answer; what happened meanwhile is noted."""
        self._number += 1
        self._wire.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._wire.recv(timeout=_SECONDS))
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        what, about = message.get("method"), message.get("params", {})
        assert what != "Inspector.targetCrashed", "the tab is gone"
        if what == "Network.requestWillBeSent" and not about["request"]["url"].startswith(("data:", "blob:")):
            self.requests.append(about["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif what == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(about["args"])[:500])
        elif what == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def open(self, address: str) -> None:
        """Go to a page and wait until it has loaded."""
        self.call("Page.navigate", url="about:blank")  # another fragment of the same page would not be loaded anew
        went = self.call("Page.navigate", url=address)
        assert "errorText" not in went, f"{address}: {went['errorText']}"
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'", address)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def text(self) -> str:
        """What a person reads on the page."""
        return self.ask("document.body.innerText")

    def wait(self, condition: str, what: str = "", seconds: float = _SECONDS) -> Any:
        """Wait until a JavaScript expression gives something true, and return it."""
        deadline = time.monotonic() + seconds
        while True:
            if value := self.ask(condition):
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"never came: {what or condition}; the page says:\n{self.text()[:3000]}")
            time.sleep(0.1)

    def wait_for_text(self, *words: str) -> None:
        """Wait until the page shows all of `words`."""
        for word in words:
            self.wait(f"document.body.innerText.includes({json.dumps(word)})", word)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what is to be seen, or the whole page, as PNG."""
        options: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options = {"captureBeyondViewport": True, "clip": {**size, "x": 0, "y": 0, "scale": 1}}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", **options)["data"]))
