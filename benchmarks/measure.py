"""What a server costs: the CPU time and the memory of all its processes, read from /proc."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
LOOPS = 101  # turns of the fixed loop: about a second
ENDED = "ZX"  # states of what has ended and is not yet forgotten


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat."""

    pid: int
    state: str
    parent: int
    session: int
    own: float  # CPU seconds, user and system
    reaped: float  # the same of the children it has waited for
    started: int  # ticks since the machine started: with the pid, who it is


def process(pid: int) -> Process | None:
    """Read one process; None where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *words = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
    user, system, child_user, child_system = map(int, words[10:14])
    own, reaped = (user + system) / TICKS, (child_user + child_system) / TICKS
    return Process(pid, state, int(words[0]), int(words[2]), own, reaped, int(words[18]))


def tree(root: int) -> list[Process]:
    """Return the living processes that descend from `root` or are in the session it leads.

    The session finds those whose parent has ended: Java and nginx start their workers so.
    """
    numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    alive = [one for one in map(process, numbers) if one is not None and one.state not in ENDED]
    found = {one.pid for one in alive if root in (one.pid, one.session)}
    while grown := {one.pid for one in alive if one.parent in found} - found:
        found |= grown
    return [one for one in alive if one.pid in found]


def lives(one: Process) -> bool:
    """Whether that very process still runs."""
    now = process(one.pid)
    return now is not None and now.started == one.started and now.state not in ENDED


def cpu_seconds(processes: Iterable[Process]) -> float:
    """Return the user and system seconds of the processes, and of children that they outlived."""
    return sum(one.own + one.reaped for one in processes)


def shares(before: Iterable[Process], after: Iterable[Process], parent: int) -> list[float]:
    """Return what part of the CPU time between two looks each child of `parent` has used."""
    spent = {one.pid: -one.own for one in before if one.parent == parent}
    for one in after:
        if one.parent == parent:
            spent[one.pid] = spent.get(one.pid, 0.0) + one.own
    total = sum(spent.values())
    return sorted((used / total for used in spent.values()), reverse=True) if total > 0 else []


def pss(processes: Iterable[Process]) -> float:
    """Return the MiB held: each page counted once over the processes that share it."""
    return sum(_pss(one.pid) for one in processes)


def _pss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0  # it has ended
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def loop() -> float:
    """Return the milliseconds of a fixed loop of work, the median of many turns.

    On a machine that does nothing else it is the same each time.
    """
    took = []
    for _ in range(LOOPS):
        began = time.perf_counter()
        sum(at * at for at in range(100_000))
        took.append(1e3 * (time.perf_counter() - began))
    return statistics.median(took)


def settle(root: int, patience: float) -> None:
    """Wait until the server is idle: callers that went away have left it work."""
    deadline = time.monotonic() + patience
    before = cpu_seconds(tree(root))
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = cpu_seconds(tree(root))
        if now - before <= 0.02:
            return
        before = now
