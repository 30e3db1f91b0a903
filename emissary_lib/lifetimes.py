"""Tunnels that are open in this process, and what becomes of them when the interpreter exits.

The kernel delivers what a program wrote to a TCP socket even if the program exits right after. Tunnels run in
daemon threads, which the interpreter stops; so at exit they get a moment to pass on what they hold.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import Final, Protocol

#: Seconds that all tunnels together get at interpreter exit.
EXIT_PATIENCE: Final = 2.0

#: Seconds between two looks at whether they are done.
_LOOK: Final = 0.005


class Lingering(Protocol):
    """A tunnel, as seen from here."""

    def leave(self) -> None:
        """The program exits: end the stream behind what was written."""

    @property
    def idle(self) -> bool:
        """Whether everything the user has written so far has reached the peer."""


_lock = threading.Lock()
_open: set[Lingering] = set()


def add(tunnel: Lingering) -> None:
    """A tunnel began."""
    with _lock:
        _open.add(tunnel)


def discard(tunnel: Lingering) -> None:
    """A tunnel is over."""
    with _lock:
        _open.discard(tunnel)


def _wait_for_tunnels() -> None:
    give_up_at = time.monotonic() + EXIT_PATIENCE
    with _lock:
        tunnels = list(_open)
    for tunnel in tunnels:
        tunnel.leave()
    while time.monotonic() < give_up_at and not all(tunnel.idle for tunnel in tunnels):
        time.sleep(_LOOK)


def _forget() -> None:
    """A forked child has the tunnels' descriptors, but none of their threads: they are its parent's."""
    global _lock
    _lock = threading.Lock()  # the old one may be held by a thread that does not exist here
    _open.clear()


atexit.register(_wait_for_tunnels)
os.register_at_fork(after_in_child=_forget)
