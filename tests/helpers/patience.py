"""How long a test waits for what has to happen: so long that only a hang reaches it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

#: Longest wait for anything, in seconds. No test depends on how much sooner it is over.
HANG: Final = 60.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Ask until ``condition`` holds: for what tells nobody when it has happened."""
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {HANG:g} s: {what}"
        threading.Event().wait(0.005)


def repeat_until_it_raises(act: Callable[[], object]) -> NoReturn:
    """Do it again and again: for a failure that comes at some time, not at the first attempt."""
    while True:
        act()


def read_until_it_raises(read: Callable[[], bytes], into: bytearray) -> None:
    """Read to a failure, with all that came before it in ``into``; returns only at a stream's clean end."""
    while data := read():
        into += data
