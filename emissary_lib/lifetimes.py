"""Tunnels that are open in this process, and what becomes of them when the interpreter exits.

The kernel delivers what a program wrote to a TCP socket even if the program exits right after. Tunnels run in
daemon threads, which the interpreter stops; so at exit they get a moment to pass on what they hold.
"""

from __future__ import annotations

import atexit
import threading
import time
from typing import Final, Protocol

#: Seconds that all tunnels together get at interpreter exit.
EXIT_PATIENCE: Final = 2.0

#: Seconds between two looks at whether they are done.
_LOOK: Final = 0.005


class Lingering(Protocol):
    """A tunnel, as seen from here."""

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
    while time.monotonic() < give_up_at:
        with _lock:
            if all(tunnel.idle for tunnel in _open):
                return
        time.sleep(_LOOK)


atexit.register(_wait_for_tunnels)
