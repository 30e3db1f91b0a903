"""A pytest plugin: whoever leaves a thread, a child process or a socket behind fails, and nobody else.

A test has to end what it started, and so has a fixture of a wider scope. Each is given as much time as
only a hang takes: a thread whose work is done is still there for a moment, longer on a busy machine. What is
there after that is named in an error of the test at hand, and ended as far as that can be done from outside;
what remains is nothing that the next test is asked about. Processes that a child has started and left behind
are not seen.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import pytest

from tests.helpers.patience import HANG
from tests.helpers.processes import children

_PROC: Final = pathlib.Path("/proc/self")

#: Seconds that a test which has failed already is given: the frames in its report hold what it made.
_AFTER_A_FAILURE: Final = 1.0


@dataclass(frozen=True)
class _Child:
    pid: int


@dataclass(frozen=True)
class _Socket:
    inode: str


Thing: TypeAlias = "threading.Thread | _Child | _Socket"


class LeakCheck:
    """The plugin; register an instance in ``pytest_configure``.

    Threads are watched everywhere, child processes and sockets where there is ``/proc``.

    Args:
        patience: Seconds that things have to go away in.
    """

    def __init__(self, patience: float = HANG) -> None:
        self._patience = patience
        self._allowed: set[Thing] = set()
        self._owned: list[set[Thing]] = []
        self._failed = False

    @pytest.fixture(autouse=True)
    def nothing_left_behind(self) -> Iterator[None]:
        """Fail a test that leaves something behind."""
        # A fixture and not a hook: the first to be set up is the last to be torn down, and what the garbage
        # collector complains of in here is still this test's.
        self._allowed, self._failed = _present(), False
        yield
        self._check("", lambda: _present() - self._allowed)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """What a fixture that outlives the test makes is its own until its end, though a test runs."""
        if fixturedef.scope == "function":
            return (yield)
        own: set[Thing] = set()

        def check() -> None:
            self._owned.remove(own)
            self._check(f"fixture {fixturedef.argname} ", lambda: _present() & own)

        fixturedef.addfinalizer(check)  # the first to be added is the last to be called
        before = _present()
        self._owned.append(own)
        try:
            return (yield)
        finally:
            own |= _present() - before.union(*self._owned)
            self._allowed |= own

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Remember whether the test has failed."""
        report = yield
        self._failed |= report.failed
        return report

    def _check(self, who: str, find: Callable[[], set[Thing]]) -> None:
        if not find():
            return
        gc.collect()
        patience = min(self._patience, _AFTER_A_FAILURE) if self._failed else self._patience
        deadline = time.monotonic() + patience
        while (left := find()) and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        if left:
            names = sorted(map(_describe, left))
            for thing in left:
                _end(thing)
            pytest.fail(f"{who}left behind: {', '.join(names)}", pytrace=False)


def _present() -> set[Thing]:
    return {*threading.enumerate(), *map(_Child, children()), *(_Socket(inode) for _fd, inode in _sockets())}


def _sockets() -> Iterator[tuple[int, str]]:
    """Each descriptor of a socket, and what tells the socket from all others."""
    for entry in _PROC.glob("fd/*"):
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            target = os.readlink(entry)
            if target.startswith("socket:"):
                yield int(entry.name), target


def _describe(thing: Thing) -> str:
    if isinstance(thing, threading.Timer):
        return f"timer {thing.name} of {getattr(thing.function, '__qualname__', thing.function)}"
    if isinstance(thing, threading.Thread):
        return f"thread {thing.name}{_place(thing)}"
    if isinstance(thing, _Child):
        with contextlib.suppress(OSError):
            command = pathlib.Path(f"/proc/{thing.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            return f"child process {thing.pid} {command or '(ended, nobody waited for it)'}".strip()
        return f"child process {thing.pid}"
    return f"{thing.inode}{_ends(thing)}"


def _place(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    place = ""
    while frame is not None:
        if frame.f_code.co_filename != threading.__file__:
            place = f" in {frame.f_code.co_qualname}"
        frame = frame.f_back
    return place


def _ends(thing: _Socket) -> str:
    for descriptor, inode in _sockets():
        if inode == thing.inode:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
                ends = f" at {copy.getsockname()}"
                with contextlib.suppress(OSError):  # it has no peer
                    ends += f", peer {copy.getpeername()}"
                return ends
    return ""


def _end(thing: Thing) -> None:
    """End what can be ended without the help of who made it; a socket's descriptor is not ours to close."""
    if isinstance(thing, threading.Timer):
        thing.cancel()
        thing.join(HANG)  # so that the next test does not meet it on its way out
    elif isinstance(thing, _Child):
        with contextlib.suppress(OSError):  # it has ended, or somebody waited for it
            os.kill(thing.pid, signal.SIGKILL)
            os.waitpid(thing.pid, 0)
