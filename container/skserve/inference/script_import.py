"""Importing the user's script; what it cannot import is said with the way out."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from skserve.errors import StartError
from skserve.inference.source import Source

# Modules that Python 3.12 and 3.13 removed, and the package that brings each.
REMOVED = {
    "aifc": "standard-aifc",
    "asynchat": "standard-asynchat",
    "asyncore": "standard-asyncore",
    "audioop": "audioop-lts",
    "cgi": "legacy-cgi",
    "cgitb": "legacy-cgi",
    "chunk": "standard-chunk",
    "crypt": "standard-crypt",
    "imghdr": "standard-imghdr",
    "mailcap": "standard-mailcap",
    "nntplib": "standard-nntplib",
    "pipes": "standard-pipes",
    "smtpd": "standard-smtpd",
    "sndhdr": "standard-sndhdr",
    "sunau": "standard-sunau",
    "telnetlib": "standard-telnetlib",
    "uu": "standard-uu",
    "xdrlib": "standard-xdrlib",
}


def imported(source: Source, program: str) -> ModuleType:
    path = source.folder / program
    name = path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec  # a .py file always has a spec and a loader
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # The bare name, because the script's own modules and its pickles refer to it by that.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if package := REMOVED.get(missing):
            raise StartError(
                f"{program} imports {missing!r}, which Python {sys.version_info.major}."
                f"{sys.version_info.minor} no longer has; add {package} to requirements.txt "
                "beside the script: it brings that module."
            ) from error
        raise StartError(
            f"{program} imports {error.name!r}, which is not installed; add it to "
            "requirements.txt beside the script, or its file to the same folder."
        ) from error
    except (Exception, SystemExit) as error:
        raise StartError(f"{program} cannot be imported: {failure_text(error)}") from error
    return module


def failure_text(error: BaseException) -> str:
    """Say what failed and in which line of which file."""
    own = isinstance(error, SyntaxError)  # its text says the place, and no line of the file ran
    place = [] if own else traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in place)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"
