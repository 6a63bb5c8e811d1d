"""Drives a headless Chromium through its debugging protocol: open a page, take pictures of it."""

import base64
import io
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--remote-debugging-port=0",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--window-size=1000,640", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
)  # fmt: skip


def find_browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One page of a real browser with WebGL in software."""

    def __init__(self, url: str, deadline: float = 40.0) -> None:
        from websockets.sync.client import connect

        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [find_browser(), *FLAGS, f"--user-data-dir={self._profile.name}", url]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = self._debugging_port(time.monotonic() + deadline)
        self._socket = connect(self._page_address(port, url, deadline), max_size=None)
        self._count = 0

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(10)
        self._profile.cleanup()

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8 of the page as it is now."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def text(self) -> str:
        answer = self._call("Runtime.evaluate", expression="document.body.innerText")
        return answer["result"].get("value", "")

    def wait(self, condition, seconds: float = 60.0) -> bool:
        """Poll until the condition holds; False if it never did."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition(self):
                return True
            time.sleep(0.3)
        return False

    def _call(self, method: str, **parameters):
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60.0))
            if answer.get("id") == self._count:
                return answer["result"]

    def _debugging_port(self, end: float) -> int:
        file = Path(self._profile.name) / "DevToolsActivePort"
        while time.monotonic() < end:
            if file.is_file() and file.read_text().strip():
                return int(file.read_text().split()[0])
            assert self._process.poll() is None, "the browser ended at once"
            time.sleep(0.1)
        raise TimeoutError("the browser opened no debugging port")

    def _page_address(self, port: int, url: str, deadline: float) -> str:
        from urllib.request import urlopen

        end = time.monotonic() + deadline
        while time.monotonic() < end:
            with urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
                pages = [p for p in json.load(answer) if p["url"].startswith(url)]
            if pages:
                return pages[0]["webSocketDebuggerUrl"]
            time.sleep(0.1)
        raise TimeoutError(f"the browser did not open {url}")
