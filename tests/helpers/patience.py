"""How long a test waits for what has to happen: so long that only a hang reaches it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

#: Longest wait for anything, in seconds. No test depends on how much sooner it is over.
HANG: Final = 60.0


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Ask until ``condition`` holds: for what tells nobody when it has happened."""
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {HANG:g} s: {what}"
        threading.Event().wait(0.005)
