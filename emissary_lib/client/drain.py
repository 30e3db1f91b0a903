"""Tunnels that are open in this process, and what becomes of them when a dialer or the interpreter ends.

The kernel delivers what a program wrote to a TCP socket even if the program exits right after. Tunnels run in
daemon threads, which the interpreter stops; so at exit they get a moment to pass on what they hold.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Collection, Mapping
from typing import Final, Protocol

#: Seconds that all tunnels together get at interpreter exit, and those of a dialer when it is closed.
DRAIN_TIMEOUT: Final = 2.0

#: Seconds between two looks at whether they are done.
_LOOK: Final = 0.005


#: The one that tells of tunnels (emissary_lib/client/socket.py).
_logger = logging.getLogger("emissary_lib.tunnel")


class Drainable(Protocol):
    """A tunnel, as seen from here."""

    def begin_drain(self) -> None:
        """The program exits: end the stream behind what was written."""

    @property
    def idle(self) -> bool:
        """Whether all that was written has reached the peer; after a cut, whether the bridge knows of it."""

    @property
    def undelivered_bytes(self) -> int:
        """Bytes that the user has written and that have not reached the peer, at least."""


_lock = threading.Lock()
_open: dict[Drainable, tuple[object, str]] = {}  # who opened it, and where it leads


def add(tunnel: Drainable, owner: object, target: str) -> None:
    """A tunnel to ``target`` began, opened by ``owner``."""
    with _lock:
        _open[tunnel] = (owner, target)


def discard(tunnel: Drainable) -> None:
    """A tunnel is over."""
    with _lock:
        _open.pop(tunnel, None)


def wait_until_idle(owner: object) -> None:
    """Wait until all that was written to the owner's tunnels has arrived, for ``DRAIN_TIMEOUT`` at most.

    Bytes that have not arrived by then are a warning on the logger ``emissary_lib.tunnel``; at exit too.
    """
    with _lock:
        tunnels = {tunnel: target for tunnel, (opened_by, target) in _open.items() if opened_by is owner}
    _wait(tunnels)
    _warn(tunnels, "when the dialer was closed: they are lost if the program exits before they have")


def _warn(tunnels: Mapping[Drainable, str], when: str) -> None:
    for tunnel, target in tunnels.items():
        if count := tunnel.undelivered_bytes:
            _logger.warning(
                "at least %d bytes written to the tunnel to %s had not arrived after %g s, %s. Shut sockets "
                "down and read them to their end before, to be sure",
                count,
                target,
                DRAIN_TIMEOUT,
                when,
            )


def _wait(tunnels: Collection[Drainable]) -> None:
    give_up_at = time.monotonic() + DRAIN_TIMEOUT
    while time.monotonic() < give_up_at and not all(tunnel.idle for tunnel in tunnels):
        time.sleep(_LOOK)


def _wait_at_exit() -> None:
    with _lock:
        tunnels = {tunnel: target for tunnel, (_owner, target) in _open.items()}
    for tunnel in tunnels:
        tunnel.begin_drain()
    _wait(tunnels)
    _warn(tunnels, "when the program exited: they are lost")


def _forget() -> None:
    """A forked child has the tunnels' descriptors, but none of their threads: they are its parent's."""
    global _lock
    _lock = threading.Lock()  # the old one may be held by a thread that does not exist here
    _open.clear()


atexit.register(_wait_at_exit)
os.register_at_fork(after_in_child=_forget)
