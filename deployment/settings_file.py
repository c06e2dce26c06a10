"""Writing into `endpoint.toml` without touching anything else of it, comments included."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

_KEY = re.compile(r"\s*(model|code)\s*=")
_TABLE = re.compile(r"\s*\[")


def keep_model(path: Path, model: str) -> bool:
    """Set `model`, and comment out `code`, at the top of the file; say whether that was possible.

    A file whose values span lines is left as it is: the result is read again before it is written.
    """
    before = path.read_text(encoding="utf-8")
    lines, top, done = before.splitlines(), True, False
    for number, line in enumerate(lines):
        top = top and not _TABLE.match(line)
        found = _KEY.match(line) if top else None
        if found and found[1] == "model":
            lines[number], done = f'model = "{model}"', True
        elif found:
            lines[number] = f"# {line}  # the archive of model holds it"
    if not done:
        lines.insert(0, f'model = "{model}"')
    after = "\n".join(lines) + "\n"
    wanted = {key: value for key, value in tomllib.loads(before).items() if key != "code"}
    try:
        same = tomllib.loads(after) == wanted | {"model": model}
    except tomllib.TOMLDecodeError:
        same = False
    if same:
        path.write_text(after, encoding="utf-8")
    return same
