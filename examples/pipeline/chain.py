"""Send rows through a chain of containers, as an inference pipeline does.

The body of each answer is the next request, under the Content-Type that it came with. Without an
Accept, each container answers in the format that its environment says.

usage: chain.py URL [URL...] < rows.csv
"""

from __future__ import annotations

import http.client
import sys
import time
import urllib.error
import urllib.request


def wait(url: str) -> None:
    """Wait until a container answers /ping."""
    for _ in range(600):
        try:
            urllib.request.urlopen(url + "/ping", timeout=2)
            return
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
    sys.exit(f"chain.py: {url} is not ready")


body, content_type = sys.stdin.buffer.read(), "text/csv"
for url in sys.argv[1:]:
    wait(url)
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(url + "/invocations", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            body, content_type = answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        sys.exit(f"chain.py: {url}: {error.code} {error.read().decode()}")
sys.stdout.buffer.write(body)
