"""The processes that another has started, told by their parents: also of threads that have ended since."""

from __future__ import annotations

import os

import psutil


def children(pid: int | None = None) -> set[int]:
    """Those that ``pid`` has started, or we, and that are there, if only as nobody waited for them."""
    return _started_by(pid, recursive=False)


def descendants(pid: int) -> set[int]:
    """Those, and theirs."""
    return _started_by(pid, recursive=True)


def _started_by(pid: int | None, *, recursive: bool) -> set[int]:
    try:
        return {child.pid for child in psutil.Process(pid or os.getpid()).children(recursive=recursive)}
    except psutil.NoSuchProcess:
        return set()
