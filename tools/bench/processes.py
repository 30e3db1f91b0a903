"""CPU time and memory of processes, from Linux's ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path


def family(root: int | None = None) -> list[int]:
    """A process and all its descendants.

    Args:
        root: Its id; ``None`` for this process.
    """
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    found = [os.getpid() if root is None else root]
    for process in found:  # grows while it is read
        found += [pid for pid, parent in parents.items() if parent == process]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far, in a hundredth of a second; 0 for one that is gone.

    Source: proc(5), ``/proc/[pid]/stat``, fields utime and stime.
    """
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM; 0 for one that is gone. Source: proc(5), field rss."""
    fields = _stat(pid)
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if fields else 0


def _stat(pid: int) -> list[str]:
    """The fields after the command's name, which is in brackets and may hold anything; state comes first."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
