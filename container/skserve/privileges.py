"""Giving root up before a byte of the model is read.

SageMaker starts containers as root. Serving needs none of it, unless only root can read the
model; then root serves, and the log says why.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import pwd
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

import numpy

from skserve.config import ModelSettings
from skserve.errors import StartError

log = logging.getLogger("skserve")

_LIBC = ctypes.CDLL(None)
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38

# The same numbers on every processor that we build for; the C library has no names for them.
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446
_LANDLOCK_WITH_SCOPES, _LANDLOCK_SCOPE_SIGNAL = 6, 2


def give_up_root(config: ModelSettings) -> None:
    """Become SKSERVE_USER if started as root, and if they can read the model and the program."""
    if os.geteuid() != 0 or config.user == "root":
        return
    try:
        user = pwd.getpwnam(config.user)
    except KeyError:
        raise StartError(f"SKSERVE_USER is {config.user}, who does not exist here.") from None
    trees = [config.model_dir, *_local_code(config)]
    obstacle = _obstacle(user, trees, ends_it=config.multi_model)
    if obstacle:
        log.info("%s, so root serves.", obstacle)
        return
    _become(user)


def shield() -> None:
    """Let no process of the same user read or write this one's memory, nor a program become root.

    Both pass on to processes that are forked from this one; the first ends with the start of
    another program. Most files of /proc/self are root's from now on: see `open_own`.
    """
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def open_own(name: str, flags: int) -> int:
    """Open a file of /proc/self, such as `oom_score_adj`. Raises OSError."""
    if os.geteuid() == 0:
        return os.open(f"/proc/self/{name}", flags)
    _LIBC.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # the file is ours for this moment
    try:
        return os.open(f"/proc/self/{name}", flags)
    finally:
        _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def confine() -> bool:
    """Keep this process and all it starts from signalling or tracing any other, for good.

    Landlock does so without root, from Linux 6.12 on. Returns False where the kernel, or what the
    container may ask of it, is older. Call it while there is one thread.
    """
    if _LIBC.syscall(_LANDLOCK_CREATE, None, 0, 1) < _LANDLOCK_WITH_SCOPES:
        return False
    scopes = struct.pack("QQQ", 0, 0, _LANDLOCK_SCOPE_SIGNAL)  # files and networks are not touched
    rules = _LIBC.syscall(_LANDLOCK_CREATE, scopes, len(scopes), 0)
    if rules < 0:
        return False
    try:
        return bool(_LIBC.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _local_code(config: ModelSettings) -> list[Path]:
    """Return what SAGEMAKER_SUBMIT_DIRECTORY names here, if it does not name something in S3."""
    where = config.submit_directory or "s3://"
    path = Path(unquote(where.removeprefix("file://")))
    return [] if where.startswith("s3://") else [path.parent if path.suffix == ".py" else path]


def _become(user: pwd.struct_passwd) -> None:
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def _obstacle(user: pwd.struct_passwd, trees: list[Path], ends_it: bool = False) -> str:
    """Say why `user` cannot serve, or nothing: a child that becomes them looks what they can read.

    Where the child cannot become them (a container without the capabilities) this process cannot.
    Where root `ends_it`, the process that serves, it must be able to.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _become(user)
            program = (Path(__file__), Path(os.__file__), Path(numpy.__file__))
            below = (tree.rglob("*") for tree in trees)
            first = _first_unreadable(itertools.chain(program, trees, *below))
            os.write(writer, os.fsencode(first)[:4096])
            os._exit(0)
        finally:
            os._exit(1)  # never return into the program that was forked
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        path = os.fsdecode(answer.read())
    endable = not ends_it or _may_end(child)
    if os.waitpid(child, 0)[1]:
        return f"root may not become {user.pw_name} here"
    if not endable:
        return f"root may not end the processes of {user.pw_name} here"
    return path and f"{user.pw_name} cannot read {path}"


def _may_end(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    return True


def _first_unreadable(paths: Iterable[Path]) -> str:
    for path in paths:
        try:
            folder = stat.S_ISDIR(path.stat().st_mode)
        except FileNotFoundError:
            continue  # a dangling link, or what is missed later by those who need it
        except OSError:
            return str(path)
        if not os.access(path, os.R_OK | (os.X_OK if folder else 0)):
            return str(path)
    return ""
