"""What a process leaves behind when it ends, to the last: nothing of it outlives a model.

A process may fork twice and begin a session of its own, so that nothing ties it to who started it
but this: the kernel gives it to the nearest process above that adopts. Each model's process does.
When that has ended, all that it started and left are children of the zygote, or theirs.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LIBC = ctypes.CDLL(None)
_PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill(ours: Callable[[int], bool]) -> list[int]:
    """Kill the children of this process that are not `ours`, and return them.

    When they have been waited for, what they have left are children too: to be called again.
    """
    killed = []
    for pid in _children():
        with suppress(OSError):  # root's, by a program that makes it so: out of our reach
            if not ours(pid):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
    return killed


def end(ours: Callable[[int], bool]) -> None:
    """Kill and wait for the children of this process that are not `ours`, and all they leave."""
    while killed := kill(ours):
        for pid in killed:
            os.waitpid(pid, 0)


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    except OSError:  # a kernel that keeps no such list
        return []
