"""usage: PYTHONPATH=container python -m tests.pictures [FOLDER]

Takes the pictures of the page that the README shows, page.png and page-phone.png, and the two other
ones of light and dark, into FOLDER (docs). It needs Debian's chromium and chromium-driver. Look at
all four of them: `build/` has what the README does not show.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests import page_models
from tests.chromium import Browser, browsing
from tests.conftest import ROOT, serving

DESKTOP, PHONE = (1280, None), (390, 844)  # pixels; as high as the page is, or as a phone

# Predictions before the one that is shown: the first ones of a server are slow.
WARM = 5


def take(browser: Browser, url: str, shown: Path, beside: Path) -> None:
    """Ask for one row, and take a picture of the page in each of four ways."""
    browser.open(url)
    browser.wait("#summary", "Answers")
    browser.type("#cell-0-2", "4100")
    for _ in range(WARM):
        browser.script("document.querySelector('#outcome').textContent = ''")
        browser.click("#form .primary")
        browser.wait("#outcome", "answered in")
    browser.wait("#figures", "median")
    browser.script("document.activeElement.blur()")
    for path, (width, height), dark in (
        (shown / "page.png", DESKTOP, False),
        (beside / "page-dark.png", DESKTOP, True),
        (beside / "page-phone-light.png", PHONE, False),
        (shown / "page-phone.png", PHONE, True),
    ):
        browser.picture(path, width, height, dark)
        print(path)


def main(folder: Path) -> None:
    beside = ROOT / "build"
    beside.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        model = page_models.make("mixed", scratch)
        one = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}
        with serving(model, scratch / "log", **one) as server, browsing(scratch) as browser:
            take(browser, server.url + "/", folder, beside)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs")
