"""A real browser for the tests: headless Chromium, driven through the routes of chromedriver."""

from __future__ import annotations

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

FOUND = bool(shutil.which("chromium") and shutil.which("chromedriver"))

ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
]
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_PATIENCE = 30  # seconds; a busy machine is no defect

# Keys as WebDriver names them.
TAB, ENTER, SHIFT, CONTROL, BACKSPACE = "\ue004", "\ue007", "\ue008", "\ue009", "\ue003"


class Browser:
    """One window. Elements are found by CSS; what is not there yet is waited for."""

    def __init__(self, driver: str, profile: Path) -> None:
        options = {
            "args": [*ARGUMENTS, f"--user-data-dir={profile}"],
            "binary": shutil.which("chromium"),
            "prefs": {"download.default_directory": str(profile / "saved")},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        (profile / "saved").mkdir(parents=True)
        self.saved = profile / "saved"
        self._session = requests.Session()
        self._url = driver + "/session"
        said = self._ask("POST", "", capabilities={"alwaysMatch": wanted})
        self._url += "/" + said["sessionId"]

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        said = self._session.request(
            method, self._url + path, json=body if method == "POST" else None, timeout=120
        ).json()["value"]
        if isinstance(said, dict) and "error" in said:
            raise AssertionError(f"{said['error']}: {said['message'][:500]}")
        return said

    def cdp(self, command: str, **parameters: Any) -> Any:
        """Run one command of the DevTools protocol."""
        return self._ask("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def open(self, url: str) -> None:
        self._ask("POST", "/url", url=url)

    def script(self, text: str, *arguments: Any) -> Any:
        """Run a script in the page and return what it returns."""
        return self._ask("POST", "/execute/sync", script=text, args=list(arguments))

    def later(self, text: str, *arguments: Any) -> Any:
        """Run a script that calls its last argument when it is done."""
        return self._ask("POST", "/execute/async", script=text, args=list(arguments))

    def until(self, true: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if found := true():
                return found
            time.sleep(0.02)
        raise AssertionError(f"{what}; the page says {self.text('body')!r:.3000}; {self.log()}")

    def all(self, css: str) -> list[str]:
        found = self._ask("POST", "/elements", using="css selector", value=css)
        return [one[_ELEMENT] for one in found]

    def find(self, css: str) -> str:
        """Return an element once it is shown."""

        def shown() -> str | None:
            found = [one for one in self.all(css) if self._ask("GET", f"/element/{one}/displayed")]
            return found[0] if found else None

        return self.until(shown, f"{css} is not shown")

    def text(self, css: str) -> str:
        """Return the text of the first such element, all of it."""
        return self.script(
            "return document.querySelector(arguments[0])?.innerText.trim() ?? ''", css
        )

    def wait(self, css: str, part: str) -> str:
        """Wait until an element holds a text, and return all that it says."""
        self.until(lambda: part in self.text(css), f"{css} does not say {part!r}")
        return self.text(css)

    def click(self, css: str) -> None:
        self._ask("POST", f"/element/{self.find(css)}/click")

    def type(self, css: str, text: str) -> None:
        """Put text into a field in the place of what it holds."""
        element = self.find(css)
        self.script("arguments[0].focus()", {_ELEMENT: element})
        self.press(CONTROL + "a", BACKSPACE)
        if text:
            self._ask("POST", f"/element/{element}/value", text=text)

    def attach(self, css: str, path: Path) -> None:
        """Choose a file in a field for files, shown or not."""
        self._ask("POST", f"/element/{self.all(css)[0]}/value", text=str(path))

    def press(self, *keys: str) -> None:
        """Press keys one after the other wherever the focus is; a pair is held together."""
        actions = []
        for key in keys:
            actions += [{"type": "keyDown", "value": one} for one in key]
            actions += [{"type": "keyUp", "value": one} for one in reversed(key)]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._ask("POST", "/actions", actions=[source])

    def paste(self, text: str) -> None:
        """Put text on the clipboard, and paste it where the focus is."""
        self.later("navigator.clipboard.writeText(arguments[0]).then(() => arguments[1]())", text)
        self.press(CONTROL + "v")

    def clipboard(self) -> str:
        return self.later("navigator.clipboard.readText().then(arguments[0])")

    def picture(
        self, path: Path, width: int, height: int | None = None, dark: bool = False
    ) -> None:
        """Save what the page looks like, as wide as asked and as high as it is."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", features=[scheme])
        self.cdp("Emulation.setScrollbarsHidden", hidden=True)
        metrics = {"width": width, "deviceScaleFactor": 1, "mobile": width < 600}
        self.cdp("Emulation.setDeviceMetricsOverride", height=height or 800, **metrics)
        high = height or self.script("return document.documentElement.scrollHeight")
        self.cdp("Emulation.setDeviceMetricsOverride", height=high, **metrics)
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))
        self.cdp("Emulation.clearDeviceMetricsOverride")

    def log(self) -> list[str]:
        """Return what the browser complained of since it was asked last."""
        return [one["message"] for one in self._ask("POST", "/se/log", type="browser")]

    def close(self) -> None:
        self._ask("DELETE", "")


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Run Chromium with a new profile in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "chromedriver.log").open("wb") as log:
        driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                requests.get(url + "/status", timeout=5)
                break
            except requests.RequestException:
                assert time.monotonic() < deadline, "chromedriver does not answer"
                time.sleep(0.02)
        browser = Browser(url, folder / "profile")
        browser.cdp(
            "Browser.grantPermissions",
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        )
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait()
