"""What the kernel says of this container: CPUs, memory, what is left, what a process holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """What this process may use: CPUs (a fraction under a quota) and bytes of memory."""

    cpus: float
    memory: int

    @classmethod
    def read(cls, root: Path = Path("/")) -> Machine:
        """Read cgroup v2 or v1 limits below `root`, the CPU affinity, and the memory fitted."""
        cgroup = root / "sys/fs/cgroup"
        cpus = float(len(os.sched_getaffinity(0)))
        quota = _numbers(cgroup / "cpu.max") or (
            _numbers(cgroup / "cpu/cpu.cfs_quota_us") + _numbers(cgroup / "cpu/cpu.cfs_period_us")
        )
        if len(quota) == 2 and quota[0] > 0:
            cpus = min(cpus, quota[0] / quota[1])
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = _numbers(cgroup / "memory.max") or _numbers(cgroup / "memory/memory.limit_in_bytes")
        return cls(cpus, min(memory, *limit) if limit else memory)

    @staticmethod
    def left(root: Path = Path("/")) -> int:
        """Return the bytes of memory that could still be taken now; the page cache is given up."""
        meminfo = _named(root / "proc/meminfo")
        left = [1024 * meminfo["MemAvailable:"]] if "MemAvailable:" in meminfo else []
        cgroup = root / "sys/fs/cgroup"
        for limit, usage, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
        ):
            numbers = _numbers(cgroup / limit), _numbers(cgroup / usage)
            if all(numbers):
                reclaimable = _named((cgroup / limit).parent / "memory.stat").get(cache, 0)
                left.append(numbers[0][0] - numbers[1][0] + reclaimable)
        return max(0, min(left, default=1 << 60))

    @staticmethod
    def oom_kills(root: Path = Path("/")) -> int:
        """Return how many processes of this container the kernel has killed for memory so far."""
        cgroup = root / "sys/fs/cgroup"
        return max(
            _named(path).get("oom_kill", 0)
            for path in (cgroup / "memory.events", cgroup / "memory/memory.oom_control")
        )


def _named(path: Path) -> dict[str, int]:
    """Return the numbers of a control file that has a name and a number on each line."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _numbers(path: Path) -> list[int]:
    """Return the whole numbers in a control file; none where it is absent or says `max`."""
    try:
        words = path.read_text().split()
    except OSError:
        return []
    return [int(word) for word in words] if "max" not in words else []


def resident(process: int | str = "self") -> int:
    """Return the bytes of memory that a process holds; 0 where it is gone."""
    return _pages(process, 1) * os.sysconf("SC_PAGE_SIZE")


def addressed() -> int:
    """Return the bytes of this process's address space."""
    return _pages("self", 0) * os.sysconf("SC_PAGE_SIZE")


def _pages(process: int | str, place: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[place])
    except (OSError, IndexError):
        return 0


def in_memory(folder: Path) -> bool:
    """Whether a folder is on a tmpfs, whose files count as memory of the container."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    below = [(len(at), kind) for at, kind in mounts if folder.resolve().is_relative_to(at)]
    return max(below, default=(0, ""))[1] == "tmpfs"
